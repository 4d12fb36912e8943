"""The files of the input: listed, and never those of the job's own output."""

from __future__ import annotations

from collections.abc import Sequence

from connectors.formats.base import Source
from connectors.formats.registry import SOURCES, load_class, source_of
from connectors.store.listing import Pattern, has_wildcard, hidden
from connectors.store.store import FileStat, Store, redact
from jobs.errors import InputError, OutputError
from jobs.job import Job


def listed(job: Job, store: Store) -> tuple[Job, Source, Sequence[FileStat]]:
    """The input files and their format: the job's, else that of the first URL's suffix, else the first with files."""
    url = job.input.url[0].lower()
    by_suffix = {end: known for known in SOURCES for end in load_class(SOURCES, known).suffixes}
    told = job.input.format or ("tfrecord" if job.input.examples else None)
    named: str | None = told or next((by_suffix[end] for end in by_suffix if url.endswith(end)), None)
    names = [named] if named else list(SOURCES)
    refusal: InputError | None = None
    for name in names:
        source: Source = load_class(SOURCES, name)()
        try:
            files = store.list(job.input.url, source.suffixes)
        except InputError as error:
            if error.facts.get("code") != "NO_INPUT":
                raise
            refusal = refusal or error
            continue
        resolved = job.input.model_copy(update={"format": name})
        if resolved.examples == "infer":
            resolved = resolved.model_copy(update={"examples": load_class(SOURCES, name)().infer(store, files)})
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
