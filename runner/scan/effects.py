"""What a call of a signature does beside answering: it changes variables or tables, or draws random numbers.

Then a row's answer depends on the calls before it, and a shard that is tried again gives another one. Nothing is
refused for that, but the user must know. The invariant: no effect is missed; one in a branch that is never taken
counts too. A variable that is set to what it is, is not changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from runner.scan.program import Program, Reach
from runner.scan.xla import module, passed

_WRITES = (
    *("Assign", "Assign*VariableOp", "AssignAdd", "AssignSub", "CountUpTo", "ResourceCountUpTo", "StridedSliceAssign"),
    *("ResourceStridedSliceAssign", "Scatter[!N]*", "ScatterNd?*", "ResourceScatter*", "Apply*", "SparseApply*"),
    *("ResourceApply*", "ResourceSparseApply*", "LookupTableInsert*", "LookupTableRemove*", "LookupTableImport*"),
    *("InitializeTable*",),
)
_NOT_WRITES = ("ScatterNdNonAliasingAdd",)  # named like those that change a variable
_DRAWS = (
    *("Random[!I]*", "Multinomial", "ParameterizedTruncatedNormal", "TruncatedNormal", "RngReadAndSkip", "*Sampler"),
    *("Stateful*Normal*", "StatefulUniform*", "StatefulRandomBinomial", "NonDeterministicInts", "Timestamp"),
    *("SampleDistortedBoundingBox*",),
)
_NOT_DRAWS = ("RandomGammaGrad",)


@dataclass(frozen=True)
class Effects:
    """Names of ops, sorted.

    writes: they change variables or tables.
    draws:  they draw random numbers that no input decides, or read the clock.
    """

    writes: tuple[str, ...] = ()
    draws: tuple[str, ...] = ()

    def warnings(self, signature: str) -> list[str]:
        """A sentence for each kind, for people."""
        said = []
        if self.writes:
            said.append(
                f"signature '{signature}' may change the model's variables or tables ({', '.join(self.writes)}):"
                " answers then depend on what each worker ran before, and a repeated attempt may give others"
            )
        if self.draws:
            said.append(
                f"signature '{signature}' may draw random numbers ({', '.join(self.draws)}): a repeated attempt, or the"
                " same job again, may give other answers"
            )
        return said


def effects(program: Program, signature: str) -> Effects:
    """What the nodes behind a signature do, in its graph and all functions that it calls."""
    reach = program.behind(signature)
    ops = sorted(program.ops(reach))
    kept = passed.ASSIGN in ops and passed.sets_none(program, reach)
    return Effects(
        writes=tuple(op for op in ops if _is(op, _WRITES, _NOT_WRITES) and not (op == passed.ASSIGN and kept)),
        draws=tuple(
            op for op in ops if _is(op, _DRAWS, _NOT_DRAWS) or (op == module.OP and _draws_inside(program, reach))
        ),
    )


def _draws_inside(program: Program, reach: Reach) -> bool:
    """Whether a program that a node holds draws random numbers."""
    nodes = (at for at in program.nodes() if at[1].op == module.OP and at in reach)
    return any(module.module(*at).draws for at in nodes)


def _is(op: str, patterns: tuple[str, ...], exceptions: tuple[str, ...]) -> bool:
    return op not in exceptions and any(fnmatchcase(op, pattern) for pattern in patterns)
