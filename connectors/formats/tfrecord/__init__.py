"""How do records of TFRecord files become tables, and rows such records?

May import: connectors.formats, connectors.store, connectors.secret, jobs.
"""

from connectors.formats.tfrecord.encoder import TFRecordEncoder
from connectors.formats.tfrecord.source import TFRecordSource

SOURCE, ENCODER = TFRecordSource, TFRecordEncoder
