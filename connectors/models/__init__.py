"""Where is this machine's copy of a remote model?

A folder in the cache is whole, and is the model whose digest it states.
May import: connectors.store, connectors.secret, jobs.
"""
