"""How does a run live on Ray, and how is a job sent to a cluster?

Ray is imported in this folder alone, and no row enters its object store.
May import: runner.pool, runner.worker, runner.engine, runner.measure, connectors.output, connectors.secret, jobs,
jobs.schedule.
"""
