"""How do record batches of Arrow IPC files become tables, and tables such files?

May import: connectors.formats, connectors.store, jobs.
"""

from connectors.formats.arrow.encoder import ArrowEncoder
from connectors.formats.arrow.source import ArrowSource

SOURCE, ENCODER = ArrowSource, ArrowEncoder
