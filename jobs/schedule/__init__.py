"""What happens next, and what when something fails?

Events come in with the time at which they happened, actions go out as values: no clock, thread, file or Ray.
May import: jobs.
"""
