"""How does a run show itself: a line, a bar, a page, a log?

Nothing here decides; every text from outside is escaped.
May import: runner.measure, connectors.secret, jobs, jobs.schedule.
"""
