"""A model that batches by itself: what its ops say of the rows of a call."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from runner.proto.saved_model_pb2 import MetaGraphDef
from runner.scan.batching import Batching, batching
from runner.scan.program import Program

_GRAPH = """
    node { name: "call" op: "PartitionedCall" attr { key: "f" value { func { name: "outer" } } } }
    node { name: "beside" op: "BatchFunction" attr { key: "max_batch_size" value { i: 2 } } }
    library {
      function {
        signature { name: "outer" }
        node_def { name: "a" op: "Relu" }
        node_def { name: "b" op: "PartitionedCall" attr { key: "f" value { func { name: "inner" } } } }
      }
      function { signature { name: "inner" } %s }
    }
"""
_SIGNATURE = 'outputs { key: "y" value { name: "call:0" } }'


def read(*nodes: str) -> Batching | None:
    inner = " ".join(f'node_def {{ name: "n{at}" op: {node} }}' for at, node in enumerate(nodes))
    proto = MetaGraphDef()
    text_format.Parse(_GRAPH % inner, proto.graph_def)
    text_format.Parse(_SIGNATURE, proto.signature_def["serve"])
    return batching(Program(proto.graph_def, proto), "serve")


def op(most: int, allowed: str = "", split: bool = False, name: str = "BatchFunction") -> str:
    sizes = "".join(f" i: {size}" for size in allowed.split())
    return (
        f'"{name}" attr {{ key: "max_batch_size" value {{ i: {most} }} }}'
        f' attr {{ key: "batch_timeout_micros" value {{ i: 100000 }} }}'
        f' attr {{ key: "allowed_batch_sizes" value {{ list {{ {sizes} }} }} }}'
        f' attr {{ key: "enable_large_batch_splitting" value {{ b: {str(split).lower()} }} }}'
    )


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([op(8)], Batching(8, 8, 0.1)),
        ([op(8, "2 4 8")], Batching(8, 8, 0.1)),
        ([op(64, "8", split=True)], Batching(64, 8, 0.1)),
        ([op(8, name="Batch")], Batching(8, 8, 0.1)),
        ([op(64), op(8)], Batching(8, 8, 0.1)),
        (['"Relu"'], None),
        (['"BatchFunction"'], None),
    ],
    ids=["plain", "allowed", "split", "batch", "two", "none", "says-nothing"],
)
def test_the_ops_behind_a_signature_say_how_many_rows_a_call_may_have(
    nodes: list[str], expected: Batching | None
) -> None:
    assert read(*nodes) == expected


@pytest.mark.parametrize(("wanted", "rows"), [(65_536, 60), (60, 60), (25, 20), (20, 20), (19, 19), (1, 1)])
def test_a_call_has_as_many_rows_as_are_computed_at_once(wanted: int, rows: int) -> None:
    assert Batching(70, 20, 0.1).rows(wanted) == rows
    assert Batching(70, 20, 0.1).sentence() == (
        "the model batches by itself: at most 70 rows a call; a call whose rows are no multiple of 20 waits 0.1 s"
    )
