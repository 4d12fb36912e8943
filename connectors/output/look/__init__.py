"""What does somebody see of an output who comes from outside: jobs below a folder, remains, whose it is?

The invariant: no driver and no cluster is asked, and only a sweep changes anything. May import: the output, formats,
stores, jobs.
"""
