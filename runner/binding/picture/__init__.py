"""How do columns of pictures feed tensors?

The invariant: nothing is decoded here. May import what `runner/binding` may.
"""
