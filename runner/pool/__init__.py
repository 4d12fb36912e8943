"""Where do workers live?

A pool starts, calls and stops workers; it decides nothing.
May import: runner.worker, runner.engine, runner.measure, jobs, jobs.schedule.
"""
