"""How does it look?

Words and tables from values; nothing here reads a file or a flag.
May import: what the commands hand over.
"""
