"""How does one worker carry one shard through?

An attempt publishes exactly the rows of its shard, or leaves nothing behind. Child processes import this folder, so
this file imports nothing.
May import: runner.batch, runner.engine, runner.binding, runner.model, runner.measure, runner.tensor, runner.proto,
connectors, jobs.
"""
