"""What of a binding is fed with pictures as they are stored, and how much that becomes."""

from __future__ import annotations

from jobs.section.columns import Decode
from runner.binding.binding import Binding
from runner.binding.picture.source import PictureSource


def pictures_of(binding: Binding) -> dict[str, Decode]:
    """Input -> how it is decoded, by the engine: it is fed with strings."""
    return {bound.name: bound.source.decode for bound in binding.inputs if isinstance(bound.source, PictureSource)}


def decoded_bytes_per_row(binding: Binding) -> int:
    """What the pictures of a row take in tensors."""
    sources = [bound.source for bound in binding.inputs if not bound.twin]
    return sum(source.decoded_bytes for source in sources if isinstance(source, PictureSource))
