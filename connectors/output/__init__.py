"""Who may write, what is published, is it everything?

A final name is given once; what a run has done can be read back from storage alone.
May import: connectors.formats, connectors.formats.tfrecord, connectors.store, connectors.secret,
connectors.failpoint, jobs.
"""
