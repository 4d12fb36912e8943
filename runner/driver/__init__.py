"""Who carries a run from first event to last?

The driver waits for events, asks the Schedule, and carries out its actions; every wait is bounded.
May import: all but runner.cli.
"""
