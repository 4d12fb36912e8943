"""A metagraph as the program that it is: which nodes and functions run at load, and which behind a signature.

Knows graphs, not what is good or bad about an op. The invariant: what is said to run is never less than what
TensorFlow runs; within a function every node counts, even those that TensorFlow prunes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs.errors import ModelError
from runner.model.folder import Location
from runner.model.saved_model import assets_of, parse
from runner.model.signature import ModelSpec
from runner.proto.saved_model_pb2 import (
    AttrEntry,
    FunctionDef,
    GraphDef,
    MetaGraphDef,
    NodeDef,
    SavedObjectGraph,
)

# Where loaders find operations to run: signatures and collections of tensorflow/cc/saved_model/constants.h.
_LOAD_SIGNATURES = ("__saved_model_init_op",)
_LOAD_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")

_COPIES = ("Identity",)  # ops whose output is their input
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")  # ops whose inputs are the arguments of their function

_VARIABLE_USERS = ("ReadVariableOp", "AssignVariableOp", "VarIsInitializedOp")

Place = str | None  # the function that holds a node; None: the graph itself


@dataclass(frozen=True)
class Reach:
    """What runs for some outputs: nodes of the graph, and functions with all their nodes."""

    nodes: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()

    def __contains__(self, at: tuple[Place, NodeDef]) -> bool:
        place, node = at
        return node.name in self.nodes if place is None else place in self.functions


class Program:
    """The graph and the functions of a metagraph, or of a graph that lies within it as data (then without loaders)."""

    def __init__(self, graph: GraphDef, proto: MetaGraphDef | None = None) -> None:
        """raises: ModelError where two functions, or two nodes of one place, have one name: one of them is hidden."""
        _require_names(graph)
        self._proto = proto or MetaGraphDef()
        self.tags = tuple(sorted(set(self._proto.meta_info_def.tags)))
        self._nodes = {node.name: node for node in graph.node}
        self.functions: dict[str, FunctionDef] = {each.signature.name: each for each in graph.library.function}
        self._gradients = {each.function_name: each.gradient_func for each in graph.library.gradient}
        self._node_calls: dict[str, set[str]] = {}  # node of the graph -> the functions that it names
        self._calls: dict[str, set[str]] = {name: set() for name in self.functions}  # function -> those its nodes name
        self._callers: dict[str, list[tuple[Place, NodeDef]]] = {}  # function -> nodes that name it
        self._behind: dict[str, Reach] = {}
        self._inner: dict[str, dict[str, NodeDef]] = {}  # function -> its nodes by name
        self._arguments_of: dict[str, dict[str, int]] = {}
        for place, node in self.nodes():
            for name in {name for name in _called(node) if name in self.functions}:
                calls = self._node_calls.setdefault(node.name, set()) if place is None else self._calls[place]
                calls.add(name)
                self._callers.setdefault(name, []).append((place, node))

    def nodes(self) -> Iterator[tuple[Place, NodeDef]]:
        """Every node with its place: the graph's, then those of all functions."""
        for node in self._nodes.values():
            yield None, node
        for name, function in self.functions.items():
            for node in function.node_def:
                yield name, node

    @cached_property
    def at_load(self) -> Reach:
        """What any loader runs to set a model up, with the paths of its assets fed."""
        return self._reach(self.init_ops)

    @cached_property
    def at_restore(self) -> Reach:
        """What any loader runs to restore variables, with the path of the model's checkpoint fed, and of its assets."""
        return self._reach([self._proto.saver_def.restore_op_name])

    @property
    def init_ops(self) -> list[str]:
        """The operations, or their tensors, that set a model up: tables, resources, whatever it likes."""
        signatures, collections = self._proto.signature_def, self._proto.collection_def
        names: list[str] = []
        for key in _LOAD_SIGNATURES:
            if key in signatures:
                names += [info.name for info in signatures[key].outputs.values()]
        for key in _LOAD_COLLECTIONS:
            if key in collections:
                names += collections[key].node_list.value
        return list(dict.fromkeys(names))

    @cached_property
    def by_objects(self) -> Reach:
        """What `tf.saved_model.load` may run by way of the objects that it builds; which of it is up to the model.

        And functions that say they implement something: TensorFlow may call them in the place of others that do.
        """
        implement = [
            name
            for name, function in self.functions.items()
            if any(attribute.key == "api_implements" for attribute in function.attr)
        ]
        return self._reach([], [*self._proto.object_graph_def.concrete_functions, *implement])

    def behind(self, signature: str) -> Reach:
        """What a call of this signature runs."""
        if signature in self._behind:
            return self._behind[signature]
        return self._behind.setdefault(signature, self._reach(self.output_tensors(signature)))

    def ops(self, reach: Reach) -> set[str]:
        """The ops of all that is reached."""
        nodes = {self._nodes[name].op for name in reach.nodes}
        return nodes.union(*({node.op for node in self.functions[name].node_def} for name in reach.functions))

    @property
    def signatures(self) -> list[str]:
        return sorted(self._proto.signature_def)

    @property
    def objects(self) -> SavedObjectGraph:
        """The Python objects that `tf.saved_model.load` would build; empty for models of TensorFlow 1."""
        return self._proto.object_graph_def

    @property
    def asset_tensors(self) -> frozenset[str]:
        """The tensors that hold the paths of the model's own assets."""
        return frozenset(_full(asset.tensor_info.name) for asset in assets_of(self._proto))

    @property
    def asset_names(self) -> frozenset[str]:
        """The file names of the model's own assets."""
        return frozenset(asset.filename for asset in assets_of(self._proto))

    @property
    def checkpoint_tensors(self) -> frozenset[str]:
        """The tensor that loaders feed with the path of the model's own checkpoint."""
        name = self._proto.saver_def.filename_tensor_name
        return frozenset([_full(name)] if name else [])

    def stems_from(self, place: Place, tensor: str, accepted: frozenset[str]) -> bool:
        """Whether a tensor is, wherever its function is called from, a copy of one of the graph's tensors `accepted`.

        Followed are copies, arguments of functions, and variables that only the graph itself sets; all else is taken
        for a foreign value.
        """
        seen: set[tuple[Place, str]] = set()
        left = [(place, tensor)]
        while left:
            at = left.pop()
            if at in seen or (at[0] is None and _full(at[1]) in accepted):
                continue
            seen.add(at)
            before = self._before(*at)
            if before is None:
                return False
            left += before
        return True

    def _before(self, place: Place, tensor: str) -> list[tuple[Place, str]] | None:
        """The tensors that this one is a copy of; None: none that is known."""
        arguments = [] if place is None else [argument.name for argument in self.functions[place].signature.input_arg]
        if place is not None and tensor in arguments:
            return self._arguments(place, arguments.index(tensor))
        node = self.node(place, tensor.partition(":")[0])
        if node is None or not node.input:
            return None
        if node.op == "ReadVariableOp" and place is None:
            return self._assigned(_operation(node.input[0]))
        return [(place, node.input[0])] if node.op in _COPIES else None

    def _assigned(self, variable: str) -> list[tuple[Place, str]] | None:
        """What a variable of the graph is set to; None where something else may set it, a checkpoint for example."""
        handle = self._nodes.get(variable)
        if handle is None or handle.op != "VarHandleOp":
            return None
        same = [node for _, node in self.nodes() if node.op == handle.op and shared_name(node) == shared_name(handle)]
        users = [node for node in self._nodes.values() if variable in map(_operation, node.input)]
        sets = [node for node in users if node.op == "AssignVariableOp" and len(node.input) > 1]
        if len(same) > 1 or any(node.op not in _VARIABLE_USERS for node in users):
            return None
        return [(None, node.input[1]) for node in sets]

    def _arguments(self, function: str, index: int) -> list[tuple[Place, str]] | None:
        """What is given as one argument of a function, at each place that calls it."""
        given: list[tuple[Place, str]] = []
        for place, node in self._callers.get(function, []):
            inputs = [name for name in node.input if not name.startswith("^")]
            plain = node.op == function or node.op in _CALLS
            if not plain or index >= len(inputs):
                return None
            given.append((place, inputs[index]))
        objects = self._proto.object_graph_def
        if function in objects.concrete_functions and not self._bound_to_asset(function, index):
            return None
        return given

    def _bound_to_asset(self, function: str, index: int) -> bool:
        """Whether a function that objects refer to takes an asset as this argument: objects are its last ones."""
        objects = self._proto.object_graph_def
        bound = objects.concrete_functions[function].bound_inputs
        first = len(self.functions[function].signature.input_arg) - len(bound)
        if index < first:
            return True  # given by its caller: the loader, with the path of the checkpoint
        node = bound[index - first]
        return node < len(objects.nodes) and objects.nodes[node].WhichOneof("kind") == "asset"

    def node(self, place: Place, name: str) -> NodeDef | None:
        if place is None:
            return self._nodes.get(name)
        if place not in self._inner:
            self._inner[place] = {node.name: node for node in self.functions[place].node_def}
        return self._inner[place].get(name)

    def arguments(self, function: str) -> dict[str, int]:
        """Name of an argument -> which it is."""
        if function not in self._arguments_of:
            given = self.functions[function].signature.input_arg
            self._arguments_of[function] = {argument.name: index for index, argument in enumerate(given)}
        return self._arguments_of[function]

    def named_by(self, node: NodeDef) -> list[str]:
        """The functions that a node calls or may call."""
        return [name for name in dict.fromkeys(_called(node)) if name in self.functions]

    def output_tensors(self, signature: str, outputs: Collection[str] | None = None) -> list[str]:
        """The graph tensors of a signature's outputs. outputs: only these, by name."""
        infos = self._proto.signature_def[signature].outputs
        names: list[str] = []
        for info in (infos[name] for name in infos if outputs is None or name in outputs):
            coo, composite = info.coo_sparse, info.composite_tensor.components
            names += [info.name, coo.indices_tensor_name, coo.values_tensor_name, coo.dense_shape_tensor_name]
            names += [part.name for part in composite]
        return [name for name in names if name]

    def _reach(self, names: Iterable[str], functions: Iterable[str] = ()) -> Reach:
        nodes: set[str] = set()
        called: set[str] = set()
        left = [_operation(name) for name in names if name]
        entered = [name for name in functions if name in self.functions]
        while left:
            name = left.pop()
            if name not in nodes and (node := self._nodes.get(name)) is not None:
                nodes.add(name)
                left += map(_operation, node.input)
                entered += self._node_calls.get(name, ())
        while entered:
            name = entered.pop()
            if name not in called:
                called.add(name)
                entered += self._calls[name]
                if (gradient := self._gradients.get(name)) in self.functions:
                    entered.append(gradient or "")
        return Reach(frozenset(nodes), frozenset(called))


def read_programs(spec: ModelSpec) -> tuple[Program, ...]:
    """Every metagraph of a model, in the order of `spec.metagraphs`. Parses the file again: a spec keeps no graph."""
    saved = parse(Location(spec.url, Path(spec.path), spec.version))
    return tuple(Program(proto.graph_def, proto) for proto in saved.meta_graphs)


def _require_names(graph: GraphDef) -> None:
    """TensorFlow takes one function of two that are equal, and refuses all else, in words of its own."""
    functions: dict[str, FunctionDef] = {}
    for function in graph.library.function:
        first = functions.setdefault(function.signature.name, function)
        if first is not function and first != function:
            raise _doubled("functions", function.signature.name)
        _require_nodes(function.node_def, f" in function {function.signature.name!r}")
    _require_nodes(graph.node, "")


def _require_nodes(nodes: Iterable[NodeDef], where: str) -> None:
    seen = set[str]()
    for node in nodes:
        if node.name in seen:
            raise _doubled("nodes", node.name, where)
        seen.add(node.name)


def _doubled(what: str, name: str, where: str = "") -> ModelError:
    return ModelError(
        f"cannot read the graph of the model: two {what} are called {name!r}{where}, and only one of them would be"
        " looked at; export the model again",
        code="MODEL_GRAPH",
    )


def _called(node: NodeDef) -> Iterator[str]:
    yield node.op
    yield from _named(node.attr)


def _named(attributes: Iterable[AttrEntry]) -> Iterator[str]:
    for attribute in attributes:
        value = attribute.value
        kind = value.WhichOneof("value")
        if kind == "func" or kind == "list":
            for function in [value.func] if kind == "func" else value.list.func:
                yield function.name
                yield from _named(function.attr)


def shared_name(node: NodeDef) -> bytes:
    """The name under which the session keeps a resource: two nodes of one shared name are one variable."""
    given = [each.value.s for each in node.attr if each.key == "shared_name" and each.value.s]
    return given[-1] if given else node.name.encode()


def _operation(name: str) -> str:
    """'^node', 'node:1' -> 'node'"""
    return name.removeprefix("^").partition(":")[0]


def _full(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"
