"""The same of pictures, alone or in tar files?

The invariant: nothing is unpickled, and what is too large is refused from its header.
"""
