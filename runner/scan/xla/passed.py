"""Variables that a call sets to what they are: Keras on JAX does so after each call with all that it does not train.

The statistics of a BatchNormalization and the state of a Dropout go into the program as arguments, come out of it as
they were, and are assigned. Reads the way from the variable through the program and back. The invariant: what is not
seen to be the same value is not said to be.
"""

from __future__ import annotations

from runner.proto.saved_model_pb2 import AttrValue, NodeDef
from runner.scan.program import Place, Program, Reach
from runner.scan.xla import module
from runner.scan.xla.bytecode import Bytecode, Operation

ASSIGN = "AssignVariableOp"

_READ, _COPIES = "ReadVariableOp", ("Identity", "IdentityN", "PreventGradient", "StopGradient")
_MAIN, _FUNCTION, _CALL, _RETURN = "main", "vhlo.func_v1", "vhlo.call_v1", "vhlo.return_v1"
_NAME = 3, "sym_name"  # of the properties of a function: arg_attrs, function_type, res_attrs, it, ...
_CALLEE = 0, "callee"  # of those of a call
_IN_FUNCTION = 2  # how deep its operations are
_MOST_COPIES = 50  # one of another


def sets_none(program: Program, reach: Reach) -> bool:
    """Whether every `AssignVariableOp` that is reached sets its variable to what the same call read of it."""
    answers = dict[tuple[Place, str], list[int | None]]()  # of each program
    nodes = (at for at in program.nodes() if at[1].op == ASSIGN and at in reach)
    return all(_keeps(program, place, node, answers) for place, node in nodes)


def passed(code: Bytecode, arguments: int) -> list[int | None]:
    """Answer by answer of a program, the argument that it is; None where it is another value, or not known.

    arguments: of its `main`; TensorFlow loads no program that takes another number.
    raises:    BytecodeError where a call names no function.
    """
    return _Functions(code).answers(_MAIN, arguments)


class _Functions:
    """Of a program: what each gives back, in numbers of its own arguments."""

    def __init__(self, code: Bytecode) -> None:
        self._code, self._bodies = code, dict[str, list[Operation]]()
        self._answers = dict[str, list[int | None]]()
        within = list[Operation]()
        for operation in code.operations if code.straight else []:
            if operation.name == _FUNCTION:
                (name,) = module.texts(code, operation, *_NAME)
                within = self._bodies[name] = []
            elif operation.depth == _IN_FUNCTION:
                within.append(operation)

    def answers(self, name: str, arguments: int) -> list[int | None]:
        if name not in self._answers:
            self._answers[name] = []  # for a function that calls itself
            self._answers[name] = self._found(self._bodies.get(name, []), arguments)
        return self._answers[name]

    def _found(self, body: list[Operation], arguments: int) -> list[int | None]:
        values: list[int | None] = [*range(arguments)]
        for operation in body:
            given = [values[number] if number < len(values) else None for number in operation.operands]
            if operation.name == _RETURN:
                return given
            made: list[int | None] = []
            if operation.name == _CALL:
                (called,) = module.texts(self._code, operation, *_CALLEE)
                passed_on = self.answers(called, len(given))
                made = [given[number] if number is not None and number < len(given) else None for number in passed_on]
            values += made if len(made) == operation.results else [None] * operation.results
        return []


def _keeps(program: Program, place: Place, node: NodeDef, answers: dict[tuple[Place, str], list[int | None]]) -> bool:
    variable, value = [*_inputs(node), "", ""][:2]
    source = _origin(program, place, value)
    if source is not None and source[0].op == module.OP:
        through, answer = source
        if (at := (place, through.name)) not in answers:
            answers[at] = _answers(through)
        given, found = _inputs(through), (answers[at] + [None] * (answer + 1))[answer]
        source = None if found is None or found >= len(given) else _origin(program, place, given[found])
    return source is not None and source[0].op == _READ and _inputs(source[0])[:1] == [variable]


def _answers(node: NodeDef) -> list[int | None]:
    """Answer by answer of a node with a program, the input that it is."""
    given, none = module.attributes(node), AttrValue()
    # A program for several platforms has an argument in front that says for which of them it is.
    first = int(len(given.get("platforms", none).list.s) > 1)
    try:
        found = passed(Bytecode(given.get("module", none).s), first + len(_inputs(node)))
    except (ValueError, RecursionError):  # it cannot be read
        return []
    return [None if number is None or number < first else number - first for number in found]


def _origin(program: Program, place: Place, tensor: str) -> tuple[NodeDef, int] | None:
    """The node that makes a tensor, and which of its answers it is, with copies passed by."""
    for _ in range(_MOST_COPIES):
        name, _, rest = tensor.partition(":")
        node, number = program.node(place, name), rest.rpartition(":")[2] or "0"
        if node is None or not number.isdecimal():
            return None
        if node.op not in _COPIES:
            return node, int(number)
        tensor = ([*_inputs(node), ""])[min(int(number), len(_inputs(node)))]
    return None


def _inputs(node: NodeDef) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]
