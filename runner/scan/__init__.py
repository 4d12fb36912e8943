"""What would it do when loaded or called, and is that allowed?

The model is judged without being loaded.
May import: runner.model, runner.tensor, runner.proto, jobs.
"""
