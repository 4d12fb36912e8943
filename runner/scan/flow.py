"""What runs for some outputs of a signature, node by node, and where a value comes from: through calls, up and down.

A function that is called from two places is two frames, because its arguments differ. Knows how TensorFlow names
tensors in graphs and functions, not what an op does to its values. The invariant: every node that runs for the outputs
is there; what merely might run, in a branch or a loop, is there too, in a frame that says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from runner.proto.saved_model_pb2 import AttrValue, NodeDef
from runner.scan.program import Place, Program

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")  # the first input chooses, the others are the arguments
LOOPS = ("While", "StatelessWhile")

# A model with more places of calls is followed no further: functions share a frame then, and no value is traced there.
_MOST_FRAMES = 4096


@dataclass(frozen=True, eq=False)
class Frame:
    """A function at one place that calls it.

    place:  the function; None: the graph.
    call:   the node that calls it, in the frame `above`; both None for the graph, and where several places share it.
    always: it runs whenever the signature does.
    """

    place: Place = None
    call: NodeDef | None = None
    above: Frame | None = None
    always: bool = True


@dataclass(frozen=True)
class Source:
    """The tensor `tensor`, which `node` makes: 'node:0' in the graph, 'node:output:0' in a function."""

    frame: Frame
    node: NodeDef
    tensor: str

    def same(self, other: Source | None) -> bool:
        return other is not None and (self.frame, self.tensor) == (other.frame, other.tensor)


class Flow:
    """outputs: the names of graph tensors, 'node:0'. known: such as are given, and computed from nothing then.
    stops: ops whose inputs do not count."""

    def __init__(
        self, program: Program, outputs: Sequence[str], known: Collection[str] = (), stops: Collection[str] = ()
    ) -> None:
        self._program, self._outputs = program, outputs
        self._known, self._stops = {_full(tensor) for tensor in known}, stops
        self._graph = Frame()
        self._frames: dict[tuple[Frame | None, str, str], Frame] = {}  # (above, node, function) -> its frame

    @cached_property
    def nodes(self) -> list[tuple[Frame, NodeDef]]:
        """What the outputs are computed from."""
        return self._reached(ordered=False)

    @cached_property
    def ordered(self) -> list[tuple[Frame, NodeDef]]:
        """The same, and what is only to run before: checks and changes of variables, and much that TensorFlow's
        optimiser knows to have no effect and leaves out."""
        return self._reached(ordered=True)

    def _reached(self, ordered: bool) -> list[tuple[Frame, NodeDef]]:
        live: dict[tuple[Frame, str], NodeDef] = {}
        entered, seen = set[Frame](), set[tuple[Frame, str]]()
        left = [(self._graph, name) for name in self._outputs if name]
        while left:
            frame, tensor = left.pop()
            if (frame, tensor) in seen:
                continue
            seen.add((frame, tensor))
            if frame is self._graph and _full(tensor) in self._known:
                continue
            if (argument := self._argument(frame, tensor)) is not None:
                left += self._given(frame, argument) or []
                continue
            node = self._program.node(frame.place, _operation(tensor))
            if node is None:
                continue
            live[frame, node.name] = node
            if node.op in self._stops:
                continue
            left += [(frame, name) for name in node.input if ordered and name.startswith("^")]
            inner = self.frames(frame, node)
            called = _is_call(self._program, node)
            for each in inner:
                if each not in entered:
                    entered.add(each)
                    left += [(each, name) for name in self._controls(each) if ordered]
                if not tensor.startswith("^"):
                    index = self._index(node, tensor) if called else None
                    left += [(each, name) for name in self._results(each, index)]
            if not called or any(each.call is None for each in inner):
                left += [(frame, name) for name in inputs(node)]
        return [(frame, node) for (frame, _), node in live.items()]

    def source(self, frame: Frame, tensor: str) -> Source | None:
        """The node that makes a tensor, through all calls that always run. None: a value of a branch or a loop, or an
        argument that nothing is known of."""
        for _ in range(_MOST_FRAMES):
            if (argument := self._argument(frame, tensor)) is not None:
                if frame.call is None or not _is_call(self._program, frame.call):
                    return None
                above = self._given(frame, argument)
                if not above:
                    return None
                frame, tensor = above[0]
                continue
            node = self._program.node(frame.place, _operation(tensor))
            if node is None:
                return None
            inner = self.frames(frame, node)
            if not _is_call(self._program, node) or not inner:
                return Source(frame, node, tensor if ":" in tensor else f"{tensor}:0")
            results = self._results(inner[0], self._index(node, tensor))
            if len(results) != 1:
                return None
            frame, tensor = inner[0], results[0]
        return None

    def frames(self, frame: Frame, node: NodeDef) -> list[Frame]:
        """Of the functions that a node names."""
        made = []
        for function in self._program.named_by(node):
            key = (frame, node.name, function)
            if key not in self._frames:
                if len(self._frames) < _MOST_FRAMES:
                    always = frame.always and _is_call(self._program, node)
                    self._frames[key] = Frame(function, node, frame, always)
                else:
                    shared = (None, "", function)
                    self._frames[key] = self._frames.setdefault(shared, Frame(function, always=False))
            made.append(self._frames[key])
        return made

    def behind(self, frame: Frame, tensor: str) -> Iterator[tuple[Frame, str]]:
        """The tensors that the value of this one is made of, one step back: of most nodes all inputs."""
        if (argument := self._argument(frame, tensor)) is not None:
            yield from self._given(frame, argument) or []
            if frame.call is not None and frame.above is not None and frame.call.op in LOOPS:  # of the round before
                yield from self._made(frame.above, frame.call, argument)
            return
        node = self._program.node(frame.place, _operation(tensor))
        if node is None:
            return
        given, index = inputs(node), self._index(node, tensor)
        if node.op in BRANCHES:
            given = given[:1]
        elif node.op in LOOPS:
            given = given[index : index + 1]
        elif _is_call(self._program, node):
            given = []
        yield from self._made(frame, node, index)
        yield from ((frame, name) for name in given)

    def _made(self, frame: Frame, node: NodeDef, index: int) -> Iterator[tuple[Frame, str]]:
        """What the functions of a node return as its output `index`; what one of another kind returns, all of it."""
        for each in self.frames(frame, node):
            one = self._results(each, index)
            yield from ((each, name) for name in one or self._results(each, None))

    def node(self, frame: Frame, tensor: str) -> NodeDef | None:
        """The node that a tensor's name names in its own frame; None for an argument."""
        if self._argument(frame, tensor) is not None:
            return None
        return self._program.node(frame.place, _operation(tensor))

    def _index(self, node: NodeDef, tensor: str) -> int:
        """Which of the outputs of a call, a branch or a loop: 'n', 'n:2', 'n:output:2', 'n:argument:0'."""
        parts = tensor.split(":")
        number = int(parts[-1]) if parts[-1].isdecimal() and len(parts) > 1 else 0
        function = self._program.functions.get(node.op)
        if function is not None and len(parts) == 3:  # it is called by its own name
            names = [argument.name for argument in function.signature.output_arg]
            return names.index(parts[1]) if parts[1] in names else number
        return number

    def _argument(self, frame: Frame, tensor: str) -> int | None:
        return None if frame.place is None else self._program.arguments(frame.place).get(tensor)

    def _given(self, frame: Frame, argument: int) -> list[tuple[Frame, str]] | None:
        """What is given as an argument of a frame's function; None where that is not known."""
        if frame.call is None or frame.above is None:
            return None
        op, given = frame.call.op, inputs(frame.call)
        if op in BRANCHES:
            argument += 1
        elif op not in LOOPS and not _is_call(self._program, frame.call):
            return [(frame.above, name) for name in given]
        if argument >= len(given):
            return None
        return [(frame.above, given[argument])]

    def _results(self, frame: Frame, index: int | None) -> list[str]:
        """The tensors that a function returns. index: only this one."""
        function = self._program.functions[frame.place or ""]
        names = [argument.name for argument in function.signature.output_arg]
        chosen = names if index is None else names[index : index + 1]
        return [function.ret[name] for name in chosen if name in function.ret]

    def _controls(self, frame: Frame) -> list[str]:
        """What runs in a function whatever is wanted of it."""
        return list(self._program.functions[frame.place or ""].control_ret.values())


def inputs(node: NodeDef) -> list[str]:
    """The tensors that a node takes."""
    return [name for name in node.input if not name.startswith("^")]


def attribute(node: NodeDef, key: str) -> AttrValue | None:
    return next((each.value for each in node.attr if each.key == key), None)


def _is_call(program: Program, node: NodeDef) -> bool:
    return node.op in CALLS or node.op in program.functions


def _operation(name: str) -> str:
    return name.removeprefix("^").partition(":")[0]


def _full(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"
