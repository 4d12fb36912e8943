"""In what do two columns of one output differ?

The invariant: an output is read once, a row group at a time, and never written. May import: a look at outputs, jobs.
"""
