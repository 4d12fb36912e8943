"""What does a SavedModel declare, and where does it lie?

Read from the protobuf alone, in a fraction of a second: TensorFlow is never imported.
May import: connectors.models, connectors.store, connectors.secret, runner.tensor, runner.proto, jobs.
"""
