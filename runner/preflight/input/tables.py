"""The files of a job's input where they are a table: which version is meant, and what it is made of.

Owns which version `latest` is: that of the output that is not finished, else the newest. Refuses to know how tables are
read. The invariant: a job that goes on reads the rows that it began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from connectors.formats.declared import text_of, type_of
from connectors.output.layout import SUCCESS
from connectors.output.verification import read_plan
from connectors.store.connect import absolute
from connectors.store.store import Store
from connectors.tables import delta, iceberg
from connectors.tables.columns import bare
from connectors.tables.snapshot import Snapshot
from jobs.errors import BindingError, RunnerError, offenders, one_of
from jobs.job import Job
from jobs.section.input import Input


def pinned(job: Job, *, overwrite: bool) -> tuple[Input, Snapshot, str]:
    """The input with its version, the table at that version, and a sentence where an output that was begun decided it.

    overwrite: what the output holds is removed.
    raises:    JobError where a library is missing; InputError where the table cannot be read; BindingError COLUMN_TYPE
               where the job says another type than the table.
    """
    given = job.input
    kind = _Delta(given) if given.delta else _Iceberg(given)
    begun = None if overwrite or kind.stated != "latest" else _begun(job, kind)
    found = kind.snapshot(begun)
    _refuse_other_types(given, found)
    story = ""
    if begun is not None and kind.newest() != found.version:
        story = f"the output was begun with {found.told.words}, and goes on with it; --overwrite begins with the newest"
    return given.of_table(found.told, found.url, **{kind.key: found.version}, **kind.identity), found, story


class _Delta:
    key = "version"

    def __init__(self, given: Input) -> None:
        self._given, self._url = given, absolute(given.delta or "")
        self.stated, self.identity = given.version, {"delta": self._url}

    def snapshot(self, begun: Mapping[str, Any] | None) -> Snapshot:
        version = begun["version"] if begun else None if self.stated == "latest" else self.stated
        return delta.snapshot(self._url, version, self._given.options)

    def newest(self) -> int:
        return delta.newest(self._url, self._given.options)


class _Iceberg:
    key = "snapshot"

    def __init__(self, given: Input) -> None:
        name = given.iceberg or ""
        self._given, self._name = given, absolute(name) if "/" in name else name
        self.stated, self.identity = given.snapshot, {"iceberg": self._name}

    def snapshot(self, begun: Mapping[str, Any] | None) -> Snapshot:
        number = begun["snapshot"] if begun else None if self.stated == "latest" else self.stated
        schema = begun.get("table_schema") if begun else None
        return iceberg.snapshot(self._name, number, schema, self._given.options, self._given.catalog)

    def newest(self) -> int:
        return iceberg.newest(self._name, self._given.options, self._given.catalog)


def _begun(job: Job, kind: _Delta | _Iceberg) -> Mapping[str, Any] | None:
    """What the plan says of the input with which the output was begun; None where it was not, or is finished."""
    with suppress(RunnerError):  # whoever writes there says what is wrong with it
        store = Store(job.output.url, job.output.options)
        sizes = store.sizes("")
        if SUCCESS in sizes:
            return None
        _, plan = read_plan(store, sizes)
        then: Mapping[str, Any] = plan.identity.get("input", {})
        if kind.identity.items() <= then.items() and isinstance(then.get(kind.key), int):
            return then
    return None


def _refuse_other_types(input: Input, found: Snapshot) -> None:
    fields = {field.name: bare(field).type for field in found.columns.fields}
    wrong = [
        f"COLUMN_TYPE: column {name!r} is {text_of(fields[name])}, and `input.schema.{name}` says {said}"
        for name, said in input.types.items()
        if name in fields and fields[name] != type_of(said)
    ]
    wrong += [
        f"COLUMN_MISSING: column {name!r} of `input.schema` is not in the table: it has {one_of(list(fields), name)}"
        for name in input.types
        if name not in fields
    ]
    if wrong:
        raise BindingError(
            f"the {found.kind} table '{found.url}' says what its columns are, and the job says otherwise; leave"
            f" `input.schema` out\n{offenders(wrong)}",
            code=wrong[0].partition(":")[0],
        )
