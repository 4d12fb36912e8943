"""Why a shared library of ops cannot be loaded, in the words of its author: names of C++ as they are written there.

Knows the linker's message, and what packages state beside their files. The invariant: what a package states is said
as its statement; for which TensorFlow a library was built is guessed only where nothing states it.
"""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from runner.scan.ops import tensorflow_version

_MISSING = re.compile(r"undefined symbol: (\w+)")
_OF_TENSORFLOW = re.compile(r"\b(tensorflow|tsl|xla|absl)::")  # what its libraries bring along, each version its own
_REQUIRED = re.compile(r"(tensorflow(-\w+)?|tf-nightly)\s*[(<>=!~](?!.*extra ==)")  # of a package, without its extras
_LETTERS = 240  # of a name: those of templates have no end
_FLOORS = 6  # folders above a library that may hold its package


def explained(path: str, reason: str) -> str:
    """What a missing symbol means; "" where `reason` names none. path: of the library."""
    missing = _MISSING.search(reason)
    if missing is None:
        return ""
    symbol = demangled(missing[1])
    wants = f"it wants '{symbol if len(symbol) <= _LETTERS else symbol[: _LETTERS - 3] + '...'}'"
    here = f"TensorFlow {found}" if (found := tensorflow_version()) else "the TensorFlow that is installed"
    if stated := _stated(Path(path)):
        return f"{wants}, which {here} does not have; its package, {stated}"
    if _OF_TENSORFLOW.search(symbol):
        return f"it was built for another TensorFlow: {wants}, which {here} does not have"
    return f"{wants}, which no library here has"


def demangled(symbol: str) -> str:
    """A name of C++ as it is written; as it is where it is none, or nothing here can tell."""
    demangle, free = _demangler()
    if demangle is None:
        return symbol
    status = ctypes.c_int(-1)
    address = demangle(symbol.encode(), None, None, ctypes.byref(status))
    if not address:
        return symbol
    try:
        return ctypes.string_at(address).decode(errors="replace")
    finally:
        free(address)


@cache
def _demangler() -> tuple[Any, Any]:
    """`__cxa_demangle` of the C++ runtime, and what frees its answers."""
    for name in ("libstdc++.so.6", "libc++abi.so.1", "libc++abi.dylib"):
        with suppress(OSError, AttributeError):
            demangle, free = ctypes.CDLL(name).__cxa_demangle, ctypes.CDLL(None).free
            demangle.restype, free.restype, free.argtypes = ctypes.c_void_p, None, (ctypes.c_void_p,)
            demangle.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
            return demangle, free
    return None, None


def _stated(path: Path) -> str:
    """Package and version, and which TensorFlow it is for, as the package of the file says; "" where there is none."""
    for folder in list(path.parents)[:_FLOORS]:
        name = path.relative_to(folder).as_posix()
        for info in folder.glob("*.dist-info"):
            package = metadata.Distribution.at(info)
            if any(str(file) == name for file in package.files or ()):
                wants = [one.split(";")[0].strip() for one in package.requires or () if _REQUIRED.match(one)]
                wanted = f"is for {', '.join(dict.fromkeys(wants))}" if wants else "does not say for which"
                return f"{package.metadata['Name']} {package.version}, {wanted}"
    return ""
