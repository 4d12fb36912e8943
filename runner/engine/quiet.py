"""Keeps the notes of TensorFlow's native code out of a user's terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_notes_dropped() -> Iterator[None]:
    """Keep what native libraries print while they load off the user's terminal.

    TensorFlow writes some notes before it reads its own log level, so only the descriptor helps. After loading it is
    the terminal's again: what a dying library says must be seen.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
