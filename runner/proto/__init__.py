"""Which messages is a SavedModel made of?

Generated protobuf messages: the part of TensorFlow's SavedModel format that is read and written without it.
May import: nothing of ours.
"""
