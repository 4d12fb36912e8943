"""This installation's own code as a wheel, for a cluster that has its dependencies but not the runner itself.

The wheel names no dependencies: nodes would fetch TensorFlow a second time. Its version carries a digest of its
content, because Ray keeps a wheel by its name.
"""

from __future__ import annotations

import hashlib
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]
_PACKAGES = ("runner", "connectors", "jobs")
_NAME = "savedmodel_runner"


def build_wheel(folder: Path, version: str, home: Path = _HOME) -> Path:
    """Write the wheel of the packages below `home` into `folder`; returns its path.

    source: binary distribution format, Python packaging specifications.
    """
    files = {
        path.relative_to(home).as_posix(): path.read_bytes()
        for package in _PACKAGES
        for path in sorted((home / package).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    content = hashlib.sha256()
    for name, data in files.items():
        content.update(f"{name}\0{len(data)}\0".encode() + data)
    version = f"{version}+{content.hexdigest()[:12]}"
    info = f"{_NAME}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: runner\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    lines = [f"{name},{_sha256(data)},{len(data)}\n" for name, data in files.items()]
    files[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    path = folder / f"{_NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            # Without the time: the same code gives the same wheel.
            wheel.writestr(zipfile.ZipInfo(name), data, compress_type=zipfile.ZIP_DEFLATED)
    return path


def _sha256(data: bytes) -> str:
    return "sha256=" + urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
