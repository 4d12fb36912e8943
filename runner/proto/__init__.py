"""Generated protobuf messages: the part of TensorFlow's SavedModel format that is read and written without it."""
