"""Several models as one engine: what is fed is given to each, and what they answer is put together.

Knows names and rows; refuses to know columns, batches of the job, and what a model computes. The invariants: a model
that takes one number of rows gets that number, filled up with the last row, and nobody outside sees more rows than were
fed; an error says which model it is of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from jobs.errors import MemoryLimitError, RunnerError
from runner.engine import Engine, EngineMember, EngineOptions, load
from runner.engine.counted import CountedEngine
from runner.model.signature import Signature, merged, prefixed
from runner.tensor import Feeds, Outputs, Tensor, cut, joined, padded


@dataclass
class _Group:
    """Models that one engine holds, and that one call of it runs: signatures of one SavedModel, or one model alone.

    batch_rows: of each call from now on.
    """

    members: tuple[EngineMember, ...]
    engine: Engine
    batch_rows: int | None

    def halve(self, rows: int | None) -> bool:
        """Calls of half of `rows`, which need less memory, where their number is not the model's; whether there are."""
        if not self.members[0].padded or rows is None or rows < 2:
            return False
        self.batch_rows = min(self.batch_rows or rows, rows // 2)
        return True

    def name(self, member: EngineMember, tensor: str) -> str:
        """What the engine calls a tensor of one of them."""
        return tensor if len(self.members) == 1 else prefixed(member.name, tensor)


class _Python(Protocol):
    """See `runner.engine.eager`, which is imported where a job chooses it."""

    def beside(self, signature: Signature) -> Engine: ...


class SeveralEngine:
    """See `runner.engine.Engine`. Its signature is that of `runner.model.signature.merged`."""

    def __init__(self, path: str, tags: Sequence[str], signature: Signature, options: EngineOptions) -> None:
        """Load the models of `options.members`. path, tags: of none of them.

        raises: ModelError naming the model and TensorFlow's reason.
        """
        self._groups: list[_Group] = []
        python: dict[Any, _Python] = {}
        try:
            for members in together(options.members):
                with _blamed(members):
                    engine = _loaded(members, options, python)
                    self._groups.append(_Group(members, engine, members[0].batch_rows))
        except BaseException:
            self.close()
            raise
        self.devices = tuple(dict.fromkeys(device for group in self._groups for device in group.engine.devices))

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        """See `Engine.run`; one model after the other, each for what is fetched of it."""
        outputs: dict[str, Tensor] = {}
        for group in self._groups:
            fed, wanted = _own(group, feeds, fetches)
            if wanted:
                found = self._called(group, fed, wanted)
                outputs |= {name: found[own] for own, name in wanted.items()}
        return {name: outputs[name] for name in fetches}

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """See `Engine.placed`; of all models together."""
        placed: dict[str, Counter[str]] = {}
        for group in self._groups:
            fed, wanted = _own(group, feeds, fetches)
            if wanted:
                piece = next(iter(_pieces(group, fed, group.batch_rows)))[0]
                for kind, ops in group.engine.placed(piece, list(wanted)).items():
                    placed.setdefault(kind, Counter()).update(ops)
        return placed

    def close(self) -> None:
        for group in self._groups:
            group.engine.close()

    def figures(self) -> dict[str, float]:
        """See `CountedEngine.figures`; of all that are compiled together."""
        counts = Counter[str]()
        for engine in self._counted:
            counts.update(engine.figures())
        return dict(counts)

    @property
    def seconds_here(self) -> float:
        """See `CountedEngine.seconds_here`."""
        return sum(engine.seconds_here for engine in self._counted)

    @property
    def _counted(self) -> list[CountedEngine]:
        return [group.engine for group in self._groups if isinstance(group.engine, CountedEngine)]

    def _called(self, group: _Group, feeds: Feeds, wanted: Mapping[str, str]) -> Outputs:
        try:
            return _in_pieces(group, feeds, list(wanted))
        except RunnerError as error:
            if len(group.members) == 1:
                raise _of(group.members, error) from error
            for member in group.members:  # the one that fails alone is to blame
                own = [name for name in wanted if name.startswith(f"{member.name}.")]
                with _blamed([member]):
                    _in_pieces(group, feeds, own)
            raise _of(group.members, error) from error


def together(members: Sequence[EngineMember]) -> list[tuple[EngineMember, ...]]:
    """Those that one session can hold and call at once: signatures of one model that differ in nothing else.

    XLA compiles the call of one signature, and Python's loader knows one at a time: such stand alone. So does one
    signature for the second time, whose inputs are the same tensors and fed with something else.
    """
    groups: dict[Any, list[EngineMember]] = {}
    times = Counter[Any]()
    for member in members:
        alone = member.engine != "session" or member.options.xla
        key: tuple[Any, ...]
        key = (member.path, member.tags, member.options, member.batch_rows, member.name if alone else "")
        times[key, member.signature.name] += 1
        key += (times[key, member.signature.name],)
        groups.setdefault(key, []).append(member)
    return [tuple(group) for group in groups.values()]


def _loaded(members: Sequence[EngineMember], options: EngineOptions, python: dict[Any, _Python]) -> Engine:
    """python: what Python's loader has loaded: it is loaded once, however many of its signatures are called."""
    first = members[0]
    signature = first.signature
    if len(members) > 1:
        signature = merged({member.name: member.signature for member in members})
    compiles = any(member.compiles for member in members)
    key = first.path, first.tags, first.options
    if first.engine == "eager" and key in python:
        engine: Engine = python[key].beside(signature)
    else:
        own = replace(options, model=first.options, name=first.url, members=(), pictures={}, compiles=compiles)
        engine = load(first.engine, first.path, first.tags, signature, own)
        if first.engine == "eager":
            python[key] = cast(_Python, engine)
    return CountedEngine(engine, first.deciders) if compiles else engine


def _own(group: _Group, feeds: Feeds, fetches: Sequence[str]) -> tuple[Feeds, dict[str, str]]:
    """What is fed to the models of a group, under its names; and its name of each output that is fetched -> ours."""
    fed: dict[str, Tensor] = {}
    wanted: dict[str, str] = {}
    for member in group.members:
        start = f"{member.name}."
        fed |= {
            group.name(member, name.removeprefix(start)): tensor
            for name, tensor in feeds.items()
            if name.startswith(start)
        }
        wanted |= {group.name(member, name.removeprefix(start)): name for name in fetches if name.startswith(start)}
    return fed, wanted


def _in_pieces(group: _Group, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
    """One call, or as many as a fixed number of rows takes."""
    size = group.batch_rows
    if size is None:
        return group.engine.run(feeds, fetches)
    answers: list[Outputs] = []
    try:
        for piece, rows in _pieces(group, feeds, size):
            answers.append(_without_filling(group.engine.run(piece, fetches), rows, size))
    except MemoryLimitError:
        if not group.halve(size):
            raise
        return _in_pieces(group, feeds, fetches)
    return {name: joined([answer[name] for answer in answers]) for name in fetches}


def _pieces(group: _Group, feeds: Feeds, size: int | None) -> Iterator[tuple[Feeds, int]]:
    """The feeds of each call of `size` rows, and how many rows of it were fed."""
    follows = [group.name(member, name) for member in group.members for name in member.follows]
    rows = feeds[follows[0]].shape[0]
    if size is None or size == rows:
        yield feeds, rows
        return
    for start in range(0, rows, size):
        piece = {name: cut(feeds[name], start, start + size) for name in follows}
        filled = {name: padded(tensor, size) if tensor.shape[0] < size else tensor for name, tensor in piece.items()}
        yield {**feeds, **filled}, min(size, rows - start)


def _without_filling(outputs: Outputs, rows: int, size: int) -> Outputs:
    """What does not follow the rows stays as it is: the trial says so."""
    return {name: cut(tensor, 0, rows) if tensor.shape[:1] == (size,) else tensor for name, tensor in outputs.items()}


@contextmanager
def _blamed(members: Sequence[EngineMember]) -> Iterator[None]:
    """Around what is done with some models alone: an error says their names."""
    try:
        yield
    except RunnerError as error:
        raise _of(members, error) from error


def _of(members: Sequence[EngineMember], error: RunnerError) -> RunnerError:
    names = ", ".join(repr(member.name) for member in members)
    fact = ",".join(member.name for member in members)
    plural = "s" * (len(members) > 1)
    return type(error)(f"model{plural} {names}: {error.message}", **error.facts | {"model": fact})
