"""The files of the input: listed, and never those of the job's own output."""

from __future__ import annotations

from collections.abc import Sequence

from connectors.formats.base import Source
from connectors.formats.registry import FORMATS, format_by_suffix, infer_examples, make_source, source_of
from connectors.secret import redact
from connectors.store.listing import Pattern, has_wildcard, hidden
from connectors.store.store import FileStat, Store
from jobs.errors import InputError, OutputError
from jobs.job import Job


def listed(job: Job, store: Store) -> tuple[Job, Source, Sequence[FileStat]]:
    """The input files and their format: the job's, else that of the first URL's suffix, else the first with files."""
    named = job.input.stated_format or format_by_suffix(job.input.url[0])
    names = [named] if named else list(FORMATS)
    refusal: InputError | None = None
    for name in names:
        try:
            files = store.list(job.input.url, make_source(name).suffixes)
        except InputError as error:
            if error.facts.get("code") != "NO_INPUT":
                raise
            refusal = refusal or error
            continue
        resolved = job.input.model_copy(update={"format": name})
        if resolved.examples == "infer":
            resolved = resolved.model_copy(update={"examples": infer_examples(name, store, files)})
        return job.model_copy(update={"input": resolved}), source_of(resolved), files
    assert refusal is not None  # there is at least one format
    raise refusal


def refuse_own_output(job: Job, store: Store, source: Source) -> None:
    """raises: OutputError where the parts of this job would be input of the next run of it."""
    output = Store(job.output.url, job.output.options)
    if output.scheme != store.scheme:
        return
    home = output.url.rstrip("/") + "/"
    for given in job.input.url:
        url = Store(given, job.input.options).url
        pattern = Pattern.parse(url) if has_wildcard(url) else Pattern(url)
        folder = pattern.folder.rstrip("/") + "/"
        part = (*filter(None, home.removeprefix(folder).split("/")), f"part{source.suffixes[0]}")
        if home.startswith(folder) and not hidden(part) and pattern.wants(part, source.suffixes):
            raise OutputError(
                f"cannot write into '{redact(output.url)}': it lies in the input '{redact(given)}', so that the next"
                " run of this job would read its own output; choose an output folder beside the input"
            )
