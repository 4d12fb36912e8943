"""Which rows are wanted, and which need not be read?

The invariant: what may match is read; what is left out is counted.
"""
