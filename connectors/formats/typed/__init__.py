"""The same of ORC, Avro and NumPy files?

The invariant: types are those that the files state.
"""
