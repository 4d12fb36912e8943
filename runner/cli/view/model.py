"""What a model declares and does, for a person (`render`) and for a script (`document`). Words only; reads nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jobs.words import counted
from runner.binding.fetching import output_field
from runner.model.signature import (
    MetaGraph,
    ModelSpec,
    Signature,
    TensorSpec,
    choose_metagraph,
    choose_signature,
    corrections,
)
from runner.report.console import printable
from runner.report.text import byte_count
from runner.scan.callables import callables
from runner.scan.compiled import compiled
from runner.scan.effects import effects
from runner.scan.flow import Flow
from runner.scan.lookups import lookups
from runner.scan.packages import advice, wanted
from runner.scan.program import Program
from runner.scan.trust import scan
from runner.scan.unfed import unfed
from runner.scan.xla.module import modules, sentence
from runner.tensor import Strings, Tensor, type_text, values_of

_TOP_OPS = 6
_SHOWN_FILES = 10
_SHOWN_VALUES = 6


def document(spec: ModelSpec, programs: Sequence[Program] = ()) -> dict[str, Any]:
    """Everything that is known of a model, as plain JSON values.

    programs: of `spec.metagraphs`, for what the model does; without them only what it declares.
    A default is a scalar or nested lists: numbers that JSON lacks are 'NaN', 'Infinity', '-Infinity'; a complex one is
    {re, im}; bytes that are not UTF-8 are escaped with backslashes.
    """
    return {
        "url": spec.url,
        "path": spec.path,
        "version": spec.version,
        "bytes": sum(spec.files.values()),
        "digest": spec.digest,
        "fingerprint": dict(spec.fingerprint),
        "files": dict(spec.files),
        "assets": _under(spec, "assets"),
        "assets_extra": _under(spec, "assets.extra"),
        "metagraphs": [
            _metagraph_document(metagraph) | (_behaviour(metagraph, programs[number]) if programs else {})
            for number, metagraph in enumerate(spec.metagraphs)
        ],
    }


def render(
    spec: ModelSpec,
    tags: Sequence[str] | None = None,
    signature: str | None = None,
    programs: Sequence[Program] = (),
) -> RenderableType:
    """A model on a terminal.

    tags, signature: show only these. raises: ModelError where the model has no such one.
    """
    chosen = spec.metagraphs if tags is None and signature is None else (choose_metagraph(spec, tags),)
    parts: list[RenderableType] = [_head(spec)]
    for metagraph in chosen:
        program = programs[spec.metagraphs.index(metagraph)] if programs else None
        signatures = metagraph.signatures.values()
        shown = [choose_signature(metagraph, signature, spec.url)] if signature else list(signatures)
        parts += [Text(), _metagraph_lines(metagraph), *_load_lines(program)]
        for each in shown:
            parts += [
                Text(),
                Padding(_signature_line(each), (0, 0, 0, 2), expand=False),
                *_warning_lines(program, each),
                Padding(_table(each, program is not None), (0, 0, 0, 4), expand=False),
            ]
        if not shown:
            parts.append(
                Padding(Text("no signatures: it cannot be called", style="yellow"), (0, 0, 0, 2), expand=False)
            )
        if program is not None and signature is None:
            parts += _function_lines(program)
    return Group(*parts)


def _behaviour(metagraph: MetaGraph, program: Program) -> dict[str, Any]:
    refused = sorted({finding.op for finding in scan([program])})
    return {
        "init_ops": program.init_ops,
        "functions": callables(program),
        "refused_ops": refused,
        "op_packages": wanted(refused),
        "warnings": [story for each in metagraph.signatures.values() for story in _warnings(program, each)],
        "looked_up": {name: looked_up(program, signature) for name, signature in metagraph.signatures.items()},
        "modules": {name: [module.document() for module in modules(program, name)] for name in metagraph.signatures},
        "if_compiled": {name: if_compiled(program, signature) for name, signature in metagraph.signatures.items()},
    }


def _warnings(program: Program, signature: Signature) -> list[str]:
    placeholders = unfed(program, signature, signature.outputs)
    cannot = [
        f"output {name!r} can never be called: no input feeds {', '.join(each)}" for name, each in placeholders.items()
    ]
    return [*effects(program, signature.name).warnings(signature.name), *cannot, *corrections(signature)]


def looked_up(program: Program, signature: Signature) -> dict[str, str]:
    """Input that is a place in a table -> which places there are."""
    flow = Flow(program, program.output_tensors(signature.name))
    return {name: str(found) for name, found in lookups(flow, signature).items()}


def if_compiled(program: Program, signature: Signature) -> list[str]:
    """What would change if XLA compiled a signature."""
    flow = Flow(program, program.output_tensors(signature.name))
    return compiled(flow, signature, lookups(flow, signature)).sentences()


def _load_lines(program: Program | None) -> list[RenderableType]:
    if program is None:
        return []
    lines = []
    if program.init_ops:
        lines.append(Text(f"  runs at load: {printable(', '.join(program.init_ops))}", style="dim"))
    if refused := sorted({finding.op for finding in scan([program])}):
        effects = printable(", ".join(refused))
        lines.append(Text(f"  may do more than compute: {effects}; `runner scan` says where", style="bold red"))
        lines += [Text(printable(f"  {story}")) for story in advice(refused)]
    return list(lines)


def _warning_lines(program: Program | None, signature: Signature) -> list[RenderableType]:
    stories = _warnings(program, signature) if program else []
    notes = [f"'{name}': {places}" for name, places in looked_up(program, signature).items()] if program else []
    notes += [said] if program and (said := sentence(modules(program, signature.name))) else []
    notes += [f"if {story}" for story in if_compiled(program, signature)] if program else []
    lines = [Text(printable(story), style="yellow") for story in stories] + [Text(printable(each)) for each in notes]
    return [Padding(line, (0, 0, 0, 4), expand=False) for line in lines]


def _function_lines(program: Program) -> list[RenderableType]:
    """What Python gets from `tf.saved_model.load`, and nothing else can call."""
    options = [(name, option) for name, options in callables(program).items() for option in options]
    lines = [Text(f"    {printable(name)}({printable(option)})") for name, option in options]
    return [Text(), Text("  Python functions of `tf.saved_model.load`", style="dim"), *lines] if lines else []


def _metagraph_document(metagraph: MetaGraph) -> dict[str, Any]:
    return {
        "tags": list(metagraph.tags),
        "tensorflow_version": metagraph.tensorflow_version,
        "ops": dict(metagraph.ops),
        "signatures": {
            name: {
                "method": signature.method,
                "inputs": {key: _tensor_document(tensor) for key, tensor in signature.inputs.items()},
                "outputs": {key: _tensor_document(tensor) for key, tensor in signature.outputs.items()},
            }
            for name, signature in metagraph.signatures.items()
        },
    }


def _tensor_document(spec: TensorSpec) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "dtype": spec.dtype,
        "shape": None if spec.shape is None else list(spec.shape),
        "tensor": spec.tensor,
        "encoding": spec.encoding,
        "components": list(spec.components),
        "arrow": _arrow_text(spec),
    }
    if spec.default is not None:
        facts["default"] = plain_values(spec.default, spec.dtype)
    return facts


def _under(spec: ModelSpec, folder: str) -> dict[str, int]:
    return {path: size for path, size in spec.files.items() if path.startswith(f"{folder}/")}


def _head(spec: ModelSpec) -> RenderableType:
    title = Text(printable(spec.url), style="bold")
    if spec.version is not None:
        title.append(f"  version {spec.version}", style="bold cyan")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    versions = sorted({metagraph.tensorflow_version for metagraph in spec.metagraphs} - {""})
    facts = {
        "saved by": f"TensorFlow {', '.join(versions)}" if versions else "",
        "size": f"{byte_count(sum(spec.files.values()))} in {counted(len(spec.files), 'file')}",
        "digest": spec.digest[:16],
        "fingerprint": str(spec.fingerprint.get("singleprint", "")),
        "assets": _files_text(_under(spec, "assets")),
        "assets.extra": _files_text(_under(spec, "assets.extra")),
    }
    for name, fact in facts.items():
        if fact:
            grid.add_row(name, Text(printable(fact)))
    return Group(title, Padding(grid, (0, 0, 0, 2), expand=False))


def _files_text(files: Mapping[str, int]) -> str:
    shown = [f"{path.partition('/')[2]} ({byte_count(size)})" for path, size in files.items()]
    more = [f"and {len(shown) - _SHOWN_FILES} more"] if len(shown) > _SHOWN_FILES else []
    return ", ".join(shown[:_SHOWN_FILES] + more)


def _metagraph_lines(metagraph: MetaGraph) -> Text:
    lines = Text.assemble("tags ", (printable(", ".join(metagraph.tags)) or "(none)", "bold green"))
    if metagraph.ops:
        most = sorted(metagraph.ops.items(), key=lambda used: (-used[1], used[0]))
        top = ", ".join(f"{count} {printable(op)}" for op, count in most[:_TOP_OPS])
        total = counted(sum(metagraph.ops.values()), "op")
        more = ", ..." if len(most) > _TOP_OPS else ""
        lines.append(f"\n  {total} of {counted(len(most), 'kind')}: {top}{more}", style="dim")
    return lines


def _signature_line(signature: Signature) -> Text:
    return Text.assemble((printable(signature.name), "bold magenta"), (f"  {printable(signature.method)}", "dim"))


def _table(signature: Signature, in_graph: bool) -> Table:
    tensors = [("in", spec) for spec in signature.inputs.values()]
    tensors += [("out", spec) for spec in signature.outputs.values()]
    defaults = any(spec.default is not None for _, spec in tensors)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("", style="cyan", no_wrap=True)
    more = [*(["in the graph"] if in_graph else []), *(["default"] if defaults else [])]
    for title in ("name", "tensor", "Arrow column", *more):
        table.add_column(title, overflow="fold")
    for way, spec in tensors:
        row = [printable(spec.name), str(spec), _arrow_text(spec) or "-"]
        if in_graph:
            row.append(printable(spec.tensor or ", ".join(spec.components)))
        if defaults:
            row.append(_default_text(spec))
        table.add_row(way, *(Text(cell) for cell in row))
    return table


def _default_text(spec: TensorSpec) -> str:
    if spec.default is None:
        return ""
    values = [printable(str(value)) for value in _values(spec.default, spec.dtype, _SHOWN_VALUES + 1)]
    more = ", ..." if len(values) > _SHOWN_VALUES else ""
    text = ", ".join(value[:40] for value in values[:_SHOWN_VALUES])
    return text if spec.default.shape == () else f"[{text}{more}]"


def _arrow_text(spec: TensorSpec) -> str | None:
    """The type of the column that carries the tensor; None where there is no such column."""
    field = output_field(spec) if spec.encoding == "dense" else None
    return None if field is None else type_text(field.type)


def plain_values(tensor: Tensor, dtype: str) -> Any:
    """A tensor as JSON values: see `document`."""
    return _nested(_values(tensor, dtype), tensor.shape)


def _values(tensor: Tensor, dtype: str, most: int | None = None) -> list[Any]:
    """The first `most` values of a tensor, flat, as JSON values."""
    if isinstance(tensor, Strings):
        return [value.decode("utf-8", "backslashreplace") for value in tensor.values[:most].to_pylist()]
    flat = values_of(tensor.reshape(-1)[:most], dtype)  # (n,)
    return [_plain(value) for value in flat.tolist()]


def _plain(value: Any) -> Any:
    if isinstance(value, complex):
        return {"re": _plain(value.real), "im": _plain(value.imag)}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    """Flat values -> nested lists of this shape, row-major; a scalar for ()."""
    array = np.empty(len(values), object)  # (n,)
    array[:] = values
    return array.reshape(shape).tolist()
