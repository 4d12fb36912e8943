"""Which files, rows and values are a table, or a folder of partitions, made of?

The invariant: rows that were deleted never come back: what cannot be applied is refused by name.
"""
