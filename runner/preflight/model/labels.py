"""The labels that a job names: read once, from the model's own folder or from a file of this machine.

Refuses to know what they are for. The invariant: workers read no such file; what is in it is part of the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from connectors.store.scratch import expanded
from jobs.section.columns import Columns
from runner.binding.shaping.labels import MOST_BYTES, Labels, read_labels, repeated
from runner.model.signature import ModelSpec


def with_labels(columns: Columns, models: Mapping[str, ModelSpec]) -> Columns:
    """The columns with what stands in the files that name labels; binding says what is wrong with one.

    models: by the names that their outputs begin with; "": the only one.
    """
    if columns.outputs is None:
        return columns
    read: dict[tuple[str, str], Labels] = {}
    outputs = {}
    for name, rule in columns.outputs.items():
        if isinstance(rule.labels, str):
            owner = (rule.of or name).partition(".")[0]
            key = rule.labels, owner if owner in models else ""
            if key not in read:
                read[key] = _read(rule.labels, models.get(key[1]))
            rule = rule.model_copy(update={"labels": read[key]})
        outputs[name] = rule
    return columns.model_copy(update={"outputs": outputs})


def repeated_labels(columns: Columns) -> list[str]:
    """Sentences for people: columns in which a label does not tell its place."""
    notes = []
    for name, rule in (columns.outputs or {}).items():
        if isinstance(rule.labels, tuple) and (story := repeated(rule.labels)):
            tells = "'index' beside it tells which" if rule.top_k else "`argmax` without labels tells which"
            notes.append(f"labels of column {name!r}: {story} of several places each; {tells}")
    return notes


def _read(name: str, model: ModelSpec | None) -> Labels:
    own = model is not None and name in model.files  # of two files the one that the model brings
    path = Path(model.path, name) if model is not None and own else expanded(name).absolute()
    origin = f"'{name}'{' of the model' if own else ''}"
    try:
        if path.exists() and not path.is_file():  # who opens a pipe waits for its other end
            raise OSError("it is no regular file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        where = "neither the model nor this machine has it" if not path.exists() else error.strerror or error
        return Labels((), origin, f"cannot read {origin}: {where}")
    if len(content) > MOST_BYTES:
        return Labels((), origin, f"{origin} has more than {MOST_BYTES // 2**20} MiB")
    return read_labels(content, origin)
