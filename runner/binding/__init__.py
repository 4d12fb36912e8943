"""Which column feeds which tensor, which output becomes which column?

Compiled once from schema and signature; rows keep their number and order.
May import: runner.binding.cast, runner.model, connectors.formats, connectors.formats.tfrecord, runner.tensor, jobs.
"""
