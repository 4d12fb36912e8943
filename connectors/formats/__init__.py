"""How do row groups become tables, and tables files?

One file per format, or a folder; a damaged file ends in one error of ours, with a code.
May import: connectors.store, connectors.secret, jobs.
"""
