"""Which files, and which of their rows, are the input of a job? Listed, looked at, of one format, none twice.

The invariant: what is wrong with any of them is told before a worker starts. May import what `runner/preflight` may.
"""
