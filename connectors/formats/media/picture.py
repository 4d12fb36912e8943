"""What the header of a picture says: how large it is, in which colours, how it lies. Read by Pillow, never decoded.

The invariant: nothing of a picture is unpacked here, however large it says it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from jobs.errors import JobError

_ORIENTATION = 0x0112  # the tag of EXIF
_BANDS = {"P": 3}  # bytes of a pixel when it is decoded, where that is not one for each band


class PictureError(Exception):
    """The bytes are no picture that is known here, or a broken one: what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Picture:
    """kind: 'JPEG', 'PNG', 'GIF', 'BMP' or 'WEBP'. width, height: as it is stored, whatever `orientation` says.

    channels:    bytes of a pixel when it is decoded as it is.
    alpha:       whether pixels may be transparent. cmyk: whether its colours are those of print.
    orientation: how it is to be turned, 1 to 8 as in EXIF; 1: not at all.
    """

    kind: str
    width: int
    height: int
    channels: int
    alpha: bool
    cmyk: bool
    orientation: int

    @property
    def decoded_bytes(self) -> int:
        return self.width * self.height * self.channels


def read_header(content: bytes) -> Picture:
    """raises: PictureError; JobError where Pillow is missing."""
    kinds = require_pillow()
    kind = next((kind for kind, (accepts, _) in kinds.items() if accepts(content[:16])), None)
    if kind is None:
        found = f"its first bytes are {content[:8].hex(' ')}" if content else "it has no bytes"
        raise PictureError(f"it is no {' or '.join(kinds)}: {found}")
    try:
        # Not by `Image.open`, which warns of large pictures, and refuses larger ones, whatever the job allows.
        image = kinds[kind][1](io.BytesIO(content))
        width, height = image.size
        transparent = "transparency" in image.info
        return Picture(
            kind,
            width,
            height,
            channels=_BANDS.get(image.mode, len(image.getbands())),
            alpha=transparent or "A" in image.getbands(),
            cmyk=image.mode == "CMYK",
            orientation=_orientation(image.info.get("exif")),
        )
    except Exception as error:  # Pillow raises whatever comes up in damaged bytes
        raise PictureError(f"its header is broken: {error or type(error).__name__}") from error


@cache
def require_pillow() -> dict[str, tuple[Callable[[bytes], Any], Callable[..., Any]]]:
    """Kind -> whether bytes begin as one does, and what opens it. raises: JobError where Pillow is missing."""
    try:
        from PIL import (
            BmpImagePlugin,
            GifImagePlugin,
            Image,
            JpegImagePlugin,
            PngImagePlugin,
            WebPImagePlugin,
        )
    except ImportError:
        message = "cannot read the headers of pictures: the package 'pillow' is missing"
        raise JobError(f"{message}; pip install 'savedmodel-runner[images]'") from None
    opens: dict[str, Callable[..., Any]] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }
    return {kind: (Image.OPEN[kind][1] or (lambda start: False), opened) for kind, opened in opens.items()}


def _orientation(exif: bytes | None) -> int:
    """A tag that makes no sense is none, as for all programs that show pictures."""
    if not exif:
        return 1
    from PIL import Image

    tags = Image.Exif()
    try:
        tags.load(exif)
        found = tags.get(_ORIENTATION)
    except Exception:  # whatever comes up in damaged bytes
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
