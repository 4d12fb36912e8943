"""How is a byte reached, and a name given exactly once, on each kind of store?

A published name shows whole content and is never replaced; no exception of a storage client leaves this folder.
May import: connectors.chain, connectors.secret, connectors.together, jobs; fsspec is imported nowhere else.
"""
