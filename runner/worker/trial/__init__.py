"""Can the model do what its signature promises, shown by a few rows before any shard is given out?

A trial proves or refuses a model, and never judges a row. Child processes import this folder, so this file imports
nothing.
May import: what the folder around it may, and of that folder nothing.
"""
