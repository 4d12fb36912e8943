"""What can be known before a worker starts?

Nothing is loaded into TensorFlow and nothing is written; what is wrong is said all at once.
May import: what lies below it: runner.worker, runner.batch, runner.engine, runner.binding, runner.scan, runner.model,
connectors, jobs.
"""
