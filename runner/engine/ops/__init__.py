"""Where do ops come from that TensorFlow itself does not have?

May import: as runner.engine.
"""
