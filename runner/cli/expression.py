"""Arrays as one writes them in NumPy, `np.ones((2, 3)) * 0.5`, without running any code.

The text is parsed into Python's syntax tree, and a few forms are understood: literals, some constructors, `reshape`,
`astype`, arithmetic. Everything else is an error, so that a line from anywhere can be given to a command.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.errors import JobError

_CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name) for name in ("array", "ones", "zeros", "full", "arange", "linspace", "eye")
}
_METHODS = ("reshape", "astype")
_NUMBERS = {name: getattr(np, name) for name in ("nan", "inf", "pi")}
_DTYPES = {
    name: np.dtype(name)
    for name in (
        *("float16", "float32", "float64", "complex64", "complex128", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
} | {"bool_": np.dtype(np.bool_), "str_": np.dtype(np.str_), "bytes_": np.dtype(np.bytes_)}
_BUILT_IN = {"float": np.dtype(float), "int": np.dtype(int), "bool": np.dtype(bool)}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FORMS = f"literals, np.{', np.'.join(_CONSTRUCTORS)}, .reshape, .astype, and + - * / of arrays and numbers"


def array(text: str) -> npt.NDArray[Any]:
    """The array that an expression stands for. raises: JobError with the part that is not understood, and the forms."""
    try:
        return np.asarray(_value(ast.parse(text.strip(), mode="eval").body))
    except _NotUnderstoodError as error:
        why = ast.unparse(error.node)
    except SyntaxError as error:
        why = f"{text!r}: {error.msg}"
    except (TypeError, ValueError, ArithmeticError, MemoryError, RecursionError) as error:
        raise JobError(f"cannot make an array of {_short(text)!r}: {error}; correct the expression") from error
    raise JobError(f"cannot make an array of {_short(text)!r}: {_short(why)} is not understood; expected {_FORMS}")


def literal(text: str) -> Any:
    """The value of a literal: numbers, text, lists, dicts. raises: JobError."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise JobError(
            f"cannot read {_short(text)!r}: it is no literal; expected numbers, text, lists, dicts"
        ) from error


class _NotUnderstoodError(Exception):
    def __init__(self, node: ast.AST) -> None:
        self.node = node


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | complex() | str() | bytes() as value):
            return value
        case ast.List(elts=parts):
            return [_value(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part) for part in parts)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_number(left), _number(right))
        case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr=name) if name in _DTYPES | _NUMBERS:
            return (_DTYPES | _NUMBERS)[name]
        case ast.Name(id=name) if name in _BUILT_IN:
            return _BUILT_IN[name]
        case ast.Call(func=ast.Attribute(value=of, attr=name)):
            return _called(node, of, name)
    raise _NotUnderstoodError(node)


def _called(call: ast.Call, of: ast.expr, name: str) -> Any:
    numpy = isinstance(of, ast.Name) and of.id in ("np", "numpy")
    if name not in (_CONSTRUCTORS if numpy else _METHODS) or any(word.arg is None for word in call.keywords):
        raise _NotUnderstoodError(call)
    function = _CONSTRUCTORS[name] if numpy else getattr(np.asarray(_value(of)), name)
    return function(*map(_value, call.args), **{str(word.arg): _value(word.value) for word in call.keywords})


def _number(node: ast.expr) -> Any:
    """An operand: text and lists would be repeated and joined, which is not meant in an array."""
    value = _value(node)
    if not isinstance(value, int | float | complex | np.ndarray | np.generic):
        raise _NotUnderstoodError(node)
    return value


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
