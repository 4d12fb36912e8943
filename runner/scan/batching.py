"""A model that batches by itself: how many rows it takes in one call, and which calls it makes wait.

`BatchFunction` (`tf.nondifferentiable_batch_function`) and `Batch` gather the calls of a server. Here they only refuse
calls of too many rows, and hold calls of too few until their time-out. Knows the attributes of these ops; refuses to
know jobs. The invariant: what an op computes on other rows than those of its call is not seen here, but by its refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.words import counted
from runner.proto.saved_model_pb2 import AttrValue, NodeDef
from runner.scan.program import Program

_OPS = ("BatchFunction", "Batch")


@dataclass(frozen=True, slots=True)
class Batching:
    """most_rows: of a call; one with more is refused. full_rows: whose multiples are computed at once. wait_s: for
    which a call of any other number waits."""

    most_rows: int
    full_rows: int
    wait_s: float

    def rows(self, wanted: int) -> int:
        """The largest number of rows up to `wanted` that a call may have, without a wait if that can be."""
        rows = min(wanted, self.most_rows)
        return rows // self.full_rows * self.full_rows if rows >= self.full_rows else rows

    def sentence(self) -> str:
        waits = (
            f"; a call whose rows are no multiple of {self.full_rows:,} waits {self.wait_s:g} s" if self.wait_s else ""
        )
        return f"the model batches by itself: at most {counted(self.most_rows, 'row')} a call{waits}"

    def document(self) -> dict[str, float]:
        return {"most_rows": self.most_rows, "full_rows": self.full_rows, "wait_s": self.wait_s}


def batching(program: Program, signature: str) -> Batching | None:
    """What the ops behind a signature say, functions included; None where no op batches."""
    reach = program.behind(signature)
    found = [_of(node) for place, node in program.nodes() if node.op in _OPS and (place, node) in reach]
    known = [one for one in found if one is not None]
    if not known:
        return None
    most = min(one.most_rows for one in known)
    return Batching(most, min(most, max(one.full_rows for one in known)), max(one.wait_s for one in known))


def _of(node: NodeDef) -> Batching | None:
    given: Mapping[str, AttrValue] = {each.key: each.value for each in node.attr}
    most = given["max_batch_size"].i if "max_batch_size" in given else 0
    if most < 1:
        return None
    sizes = given["allowed_batch_sizes"].list.i if "allowed_batch_sizes" in given else ()
    # A larger batch is cut into pieces of the largest size that is allowed; where none is cut, that is `most`.
    full = min(most, max(sizes, default=most)) if _is_true(given, "enable_large_batch_splitting") else most
    micros = given["batch_timeout_micros"].i if "batch_timeout_micros" in given else 0
    return Batching(most, max(1, full), micros / 1e6)


def _is_true(given: Mapping[str, AttrValue], name: str) -> bool:
    return name in given and given[name].b
