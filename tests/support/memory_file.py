"""An open file of a fake store: its content is in memory, and never changes."""

from __future__ import annotations

import io


class MemoryFile(io.BytesIO):
    """As `connectors.store.files.OpenFile`, as far as readers of formats need it."""

    def settle(self) -> None:
        """It is what it was."""
