"""Where a job writes, compared with what it reads: nothing that it leaves may become a part of its model or input.

Looks at names alone, before anything is written. Refuses to know what is in the files. Of the output in the input,
where patterns and formats decide, see `input.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

from connectors.models.cache import CacheSettings, ModelCache
from connectors.secret import redact
from connectors.store.connect import absolute, below, scheme_of
from connectors.store.listing import Pattern, has_wildcard, hidden
from connectors.store.scratch import scratch_home
from connectors.store.store import Store
from jobs.errors import JobError, OutputError
from jobs.job import Job
from jobs.section.model import Model


def refuse_mixed_places(job: Job, cache: CacheSettings) -> None:
    """raises: OutputError for an output in the model; JobError for copies of the model in output or input, and for
    spools in the model, on this machine. Links are followed."""
    for model in job.called.values():
        _refuse_mixed(job, model, cache)


def _refuse_mixed(job: Job, section: Model, cache: CacheSettings) -> None:
    model, output = section.url, job.output.url
    address = "endpoint_url"  # names of two servers are no names of one folder
    if below(output, model) is not None and section.options.get(address) == job.output.options.get(address):
        raise OutputError(
            f"cannot write into '{redact(output)}': it lies in the model '{redact(model)}', whose files would be others"
            " then; choose an output folder beside the model"
        )
    if scheme_of(model) != "file":
        _refuse_cache(job, str(ModelCache(cache).folder))
    elif scheme_of(output) != "file" and below(str(scratch_home()), model) is not None:
        raise JobError(
            f"cannot keep parts in '{scratch_home()}' until they are published: it lies in the model '{model}', whose"
            " files would be others then; set TMPDIR to a folder of its own"
        )


def require_shared(store: Store, *, in_process: bool) -> None:
    """raises: OutputError for an output that only this process has, where others are to write it."""
    if store.kind.in_process and not in_process:
        raise OutputError(
            f"cannot write to '{store.url}' from workers: each process has a {store.scheme}:// of its own, and the"
            " rows would vanish; choose another output url, or run in this process"
        )


def require_writable(output: str) -> None:
    """raises: OutputError for a folder of this machine that this user may not write to. A store tells only later."""
    if scheme_of(output) != "file":
        return
    folder = Path(absolute(output).removeprefix("file://"))
    place = next(there for there in (folder, *folder.parents) if there.exists())
    if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write into '{output}': this user may not write to folder '{place}'; choose another output url, or"
            " change who may"
        )


def _refuse_cache(job: Job, folder: str) -> None:
    for what, url in (("output", job.output.url), *(("input", url) for url in job.input.places)):
        pattern = Pattern.parse(absolute(url)) if has_wildcard(url) else Pattern(url)
        inside = below(folder, pattern.folder)
        if inside is not None and not hidden(inside) and pattern.reaches(inside):
            raise JobError(
                f"cannot keep a copy of the model in '{folder}': it lies in the {what} '{redact(url)}', whose readers "
                "would take its files for rows; set RUNNER_MODEL_CACHE to a folder of its own"
            )
