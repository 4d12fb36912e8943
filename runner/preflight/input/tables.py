"""The files of a job's input where they are a table: which version is meant, and what it is made of.

Owns which version `latest` is: that of the output that is not finished, else the newest. Refuses to know how tables are
read. The invariant: a job that goes on reads the rows that it began with.
"""

from __future__ import annotations

from contextlib import suppress

from connectors.formats.declared import text_of, type_of
from connectors.output.layout import SUCCESS
from connectors.output.verification import read_plan
from connectors.store.connect import absolute
from connectors.store.store import Store
from connectors.tables import delta
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
    identity = {"delta": absolute(given.delta or "")}
    begun = None if overwrite or given.version != "latest" else _begun(job, identity, "version")
    version = given.version if given.version != "latest" else begun
    found = delta.snapshot(given.delta or "", version, given.options)
    _refuse_other_types(given, found)
    story = ""
    if begun is not None:
        story = (
            f"the output was begun with version {begun} of the table, and goes on with it; --overwrite begins anew with"
            " the latest"
        )
    return given.of_table(found.told, found.url, version=found.version, **identity), found, story


def _begun(job: Job, identity: dict[str, str], key: str) -> int | None:
    """The version of the table with which the output was begun; None where it was not, or is finished."""
    with suppress(RunnerError):  # whoever writes there says what is wrong with it
        store = Store(job.output.url, job.output.options)
        sizes = store.sizes("")
        if SUCCESS in sizes:
            return None
        _, plan = read_plan(store, sizes)
        then = plan.identity.get("input", {})
        if identity.items() <= then.items() and isinstance(then.get(key), int):
            return int(then[key])
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
