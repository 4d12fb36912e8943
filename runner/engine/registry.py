"""The ops that the installed TensorFlow knows, and those that packages beside it register.

`python -m runner.engine.registry` writes the first down for `runner.scan.trust`, which must judge a model where
TensorFlow is not loaded; with `--packages` the second, those of the packages that are installed.
"""

from __future__ import annotations

import ctypes
import sys
from importlib import metadata
from pathlib import Path

from runner.engine.capi import library, load_ops
from runner.proto.saved_model_pb2 import OpList
from runner.scan import ops, packages


def registered_ops() -> dict[str, bool]:
    """Name -> whether it is stateful, of every op that a model can hold. Those that begin with '_' are TensorFlow's
    own, put into graphs only after they are loaded."""
    tf = library()
    buffer = tf.TF_GetAllOpList()
    try:
        listed = OpList.FromString(ctypes.string_at(buffer.contents.data, buffer.contents.length))
    finally:
        tf.TF_DeleteBuffer(buffer)
    return {op.name: op.is_stateful for op in sorted(listed.op, key=lambda op: op.name) if not op.name.startswith("_")}


def registered_by(name: str) -> packages.Libraries:
    """What each library of an installed package registers, once it is loaded; those that register nothing left out."""
    distribution = metadata.distribution(name)
    found = {}
    for file in sorted(distribution.files or (), key=str):
        path = Path(str(distribution.locate_file(file)))
        if file.suffix == ".so":
            before = registered_ops()
            load_ops(str(path))
            if new := {op: stateful for op, stateful in registered_ops().items() if op not in before}:
                found[file.as_posix()] = new
    return found


def main(arguments: list[str]) -> None:
    if arguments != ["--packages"]:
        ops.PATH.write_text(ops.updated(ops.tensorflow_version(), registered_ops()), encoding="utf-8")
        return
    known = dict(packages.packages())
    for name in packages.EXTRAS:
        if version := packages.installed_version(name):
            empty = packages.Package(name, (), {})
            known[name] = known.get(name, empty).seen(version, registered_by(name))
    packages.PATH.write_text(packages.text(known.values()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
