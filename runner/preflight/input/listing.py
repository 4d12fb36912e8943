"""The files of the input: listed, of one format, and never those of the job's own output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from connectors.formats.base import Source
from connectors.formats.registry import (
    SOURCES,
    SUFFIXES,
    format_by_content,
    format_by_suffix,
    infer_examples,
    other_suffixes,
)
from connectors.secret import redact
from connectors.store.connect import absolute, below
from connectors.store.listing import Listing, Pattern, has_wildcard, hidden, in_folders
from connectors.store.store import FileStat, Store
from connectors.tables.partitions import with_values
from connectors.tables.source import source_of
from connectors.tables.table import TableSource
from jobs.errors import BindingError, InputError, OutputError
from jobs.job import Job
from runner.preflight.input.lake import refuse_table
from runner.preflight.input.tables import pinned


@dataclass(frozen=True)
class Listed:
    """The files of a job's input.

    job:      with the format resolved.
    left_out: 'hidden', or how names end -> how many are there beside the files and are not meant.
    warnings: sentences for people.
    """

    job: Job
    source: Source
    files: Sequence[FileStat]
    left_out: Mapping[str, int]
    warnings: Sequence[str] = ()


def found(job: Job, *, overwrite: bool = False) -> tuple[Store, Listed]:
    """The store of the input, and its files. overwrite: see `tables.pinned`. raises: as `listed` and `pinned`."""
    if not job.input.is_table:
        store = Store(job.input.url[0], job.input.options)
        return store, listed(job, store)
    resolved, snapshot, story = pinned(job, overwrite=overwrite)
    job = job.model_copy(update={"input": resolved})
    source = TableSource(snapshot.told, snapshot.deleted)
    return Store(snapshot.url, resolved.options), Listed(job, source, snapshot.files, {}, [story] if story else [])


def listed(job: Job, store: Store) -> Listed:
    """The input files and their format: the job's, else that of the first URL's suffix, else what the files show.

    raises: InputError NO_INPUT, DUPLICATE_INPUT, INPUT_TABLE, PARTITION.
    """
    name, listing = _of_one_format(job, store)
    warnings = refuse_table(store, listing)
    resolved = job.input.model_copy(update={"format": name})
    if resolved.examples == "infer":
        resolved = resolved.model_copy(update={"examples": infer_examples(name, store, listing.files)})
    job = job.model_copy(update={"input": resolved})
    layout = resolved.partitions
    files = listing.files if layout is None else with_values(listing, layout)
    return Listed(job, source_of(resolved), files, listing.left_out, warnings)


def _of_one_format(job: Job, store: Store) -> tuple[str, Listing]:
    urls = job.input.url
    if stated := job.input.stated_format or format_by_suffix(urls[0]):
        return stated, store.list(urls, SUFFIXES[stated], other_suffixes(stated))
    usual, *others = SOURCES
    found = usually = _there(store, urls, [usual])
    if isinstance(found, InputError):
        found = _there(store, urls, others)  # one look for all of them: a folder may hold a million names
    if isinstance(found, InputError):
        assert isinstance(usually, InputError)
        return _without_suffix(urls, store, usually)
    shown = _shown(store, found.files, usual)
    if shown == usual and found is usually:
        return shown, found
    return shown, store.list(urls, SUFFIXES[shown], other_suffixes(shown))


def _there(store: Store, urls: Sequence[str], names: Sequence[str]) -> Listing | InputError:
    """What the urls mean if files are of these formats; the error NO_INPUT where that is none."""
    try:
        return store.list(urls, [suffix for name in names for suffix in SUFFIXES[name]])
    except InputError as error:
        if error.facts.get("code") != "NO_INPUT":
            raise
        return error


def _shown(store: Store, files: Sequence[FileStat], first: str) -> str:
    """The format of files that were named, or matched by name: by a suffix, else by content, else `first`."""
    suffixes = {format_by_suffix(file.url) for file in files}
    for name in (first, *SOURCES):
        if name in suffixes:
            return name
    return format_by_content(store, files) or first


def _without_suffix(urls: Sequence[str], store: Store, refusal: InputError) -> tuple[str, Listing]:
    """The format of folders without a file that has the suffix of one."""
    try:
        bare = store.list(urls, (), other_suffixes())
    except InputError:
        raise refusal from None
    name = format_by_content(store, bare.files)
    if name is None:
        advice = f"; if they are the input, say what they are: `input: {{format: {' | '.join(SOURCES)}}}`"
        raise InputError(refusal.message + advice, **refusal.facts)
    return name, store.list(urls, SUFFIXES[name], other_suffixes(name))


def with_advice(
    error: BindingError, columns: Sequence[str], schema: pa.Schema, files: Sequence[FileStat], source: Source
) -> BindingError:
    """The error, with a line for each of `columns` that no file has and that stands in the names of its folders, and
    one on those that rows show which nobody looked at."""
    lacking = [name for name in columns if schema.get_field_index(name) < 0]
    lines = [f"\n  - {words}" for name in lacking if (words := in_folders(name, [file.url for file in files[:1]]))]
    if lacking and source.states == "kinds":
        lines.append(
            "\n  - only the first rows show what columns there are; declare one that comes later:"
            f" `input.schema: {{{lacking[0]}: string}}`"
        )
    return BindingError(error.message + "".join(lines), **error.facts)


def refuse_own_output(job: Job, source: Source) -> None:
    """raises: OutputError where the parts of this job would be input of the next run of it."""
    output = Store(job.output.url, job.output.options)
    for given in job.input.url:
        url = Store(given, job.input.options).url
        pattern = Pattern.parse(absolute(url)) if has_wildcard(url) else Pattern(url)
        inside = below(output.url, pattern.folder)
        if inside is not None and job.input.is_table:
            raise OutputError(
                f"cannot write into '{redact(output.url)}': it lies in the table '{redact(given)}', which may remove"
                " what is none of its files; choose an output folder beside the table"
            )
        part = (*(inside or ()), f"part{source.suffixes[0]}")
        if inside is not None and not hidden(part) and pattern.wants(part, source.suffixes):
            raise OutputError(
                f"cannot write into '{redact(output.url)}': it lies in the input '{redact(given)}', so that the next"
                " run of this job would read its own output; choose an output folder beside the input"
            )
