"""Ops of packages that read files: which they read, and whether those are the model's own assets.

A forest of ydf is a folder of assets. Its op is given the path of that folder, made from the path of one asset by
taking the file's name off, and a prefix of names. The invariant: what is let through cannot be led to another folder,
whatever the graph says elsewhere.
"""

from __future__ import annotations

import re

from runner.proto.saved_model_pb2 import NodeDef
from runner.scan.flow import attribute
from runner.scan.program import Place, Program

# Op -> which of its inputs is the folder.
FOLDER_READERS = {"SimpleMLLoadModelFromPath": 0, "SimpleMLLoadModelFromPathWithHandle": 1}
_FILE_NAME = re.compile(rb"\w+")  # as a pattern it matches itself and nothing else


def reads_assets(program: Program, place: Place, node: NodeDef) -> bool:
    """Whether all that a node of FOLDER_READERS can read is in the folder of the model's assets."""
    index, prefix = FOLDER_READERS[node.op], attribute(node, "file_prefix")
    if index >= len(node.input) or (prefix is not None and re.search(rb"[/\\]|\.\.", prefix.s)):
        return False
    made, seen = _maker(program, place, node.input[index]), set[str]()
    while made is not None and made.op == "Identity" and made.input and made.name not in seen:
        seen.add(made.name)
        made = _maker(program, place, made.input[0])
    if made is None or made.op != "StaticRegexReplace" or not made.input:
        return False
    pattern, rewrite = attribute(made, "pattern"), attribute(made, "rewrite")
    names = {name.encode() for name in program.asset_names}
    plain = pattern is not None and _FILE_NAME.fullmatch(pattern.s) is not None and pattern.s in names
    taken_off = plain and (rewrite is None or not rewrite.s)
    return taken_off and program.stems_from(place, made.input[0], program.asset_tensors)


def _maker(program: Program, place: Place, tensor: str) -> NodeDef | None:
    return program.node(place, tensor.partition(":")[0])
