"""How do rows become batches, and what if a batch will not go?

Every row leaves exactly once: scored, or rejected with its reason.
May import: runner.binding, runner.binding.cast, connectors.output, connectors.secret, runner.tensor, jobs.
"""
