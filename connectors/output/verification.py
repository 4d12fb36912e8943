"""The proof, from storage alone, that every input row is in exactly one part: no driver, no model, no cluster.

Believes the plan (which names itself by its hash), the parts and their commit headers; receipts are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from connectors.formats.registry import ENCODERS, format_by_suffix, format_of, make_encoder, make_source, part_suffix
from connectors.output.claim import is_read, read_manifest
from connectors.output.layout import PART_PREFIX, RUN, SUCCESS, Layout, decode, shard_of_part
from connectors.output.part import stated
from connectors.output.status import current_layout
from connectors.store.store import Store
from jobs import notebook
from jobs.attempt import LEFT_OUT, input_slice
from jobs.errors import DataError, OutputError, RunnerError
from jobs.format import DEFAULT_FORMAT
from jobs.identity import output_codec, output_format
from jobs.plan import Plan, Shard, Slice
from jobs.section.canonical import digest
from jobs.section.output import Output
from jobs.words import counted

_THREADS = 16
_READ_BYTES = 2**20

Kind = Literal["missing", "doubled", "foreign", "altered", "unfinished"]


@dataclass(frozen=True, slots=True)
class Problem:
    kind: Kind
    name: str  # of the file, below the output
    story: str


@dataclass(frozen=True, slots=True, repr=False)
class Verification:
    """rows: of the plan. rows_found: in parts that are as they should be. unchecked: parts without a known SHA-256.

    rows_left_out: that the job did not want, by `where` or `sample`.
    files_skipped: files that are no part of the plan because they were bad when it was made: url -> code.
    """

    output: str
    plan_id: str = ""
    finished: bool = False
    deep: bool = False
    parts: int = 0
    parts_found: int = 0
    rows: int = 0
    rows_found: int = 0
    rows_rejected: int = 0
    rows_left_out: int = 0
    files_skipped: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    unchecked: int = 0
    problems: tuple[Problem, ...] = field(default=())

    @property
    def holds(self) -> bool:
        return not self.problems

    def document(self) -> dict[str, Any]:
        return {"holds": self.holds, **asdict(self), "problems": [asdict(problem) for problem in self.problems]}

    def __repr__(self) -> str:
        first = "".join(f": {one.kind} '{one.name}': {one.story}" for one in self.problems[:1])
        more = f"; and {len(self.problems) - 1:,} more" if len(self.problems) > 1 else ""
        return f"<Verification of '{self.output}': {self._verdict()}{first}{more}>"

    def _repr_html_(self) -> str:
        rejected = f", and {self.rows_rejected:,} rejected" if self.rows_rejected else ""
        left_out = f", and {self.rows_left_out:,} left out" if self.rows_left_out else ""
        shown = {
            "output": self.output,
            "verdict": self._verdict(),
            "rows": f"{self.rows_found:,} of {self.rows:,} in parts{rejected}{left_out}",
            "parts": f"{self.parts_found:,} of {self.parts:,}" + (", each read again" if self.deep else ""),
            "files left out": ", ".join(self.files_skipped),
        }
        listed = ((problem.kind, problem.name, problem.story) for problem in self.problems)
        below = notebook.table(("problem", "file", ""), listed) if self.problems else ""
        return notebook.facts("Verification", shown, below=below)

    def _verdict(self) -> str:
        return "holds" if self.holds else "does not hold"


@dataclass(frozen=True, slots=True)
class _Found:
    """What one listed file turned out to be: the shard it holds, or a problem."""

    shard: int | None = None
    rows: int = 0
    rejected: int = 0
    left_out: int = 0
    bytes: int = 0
    sha256: str = ""
    problem: Problem | None = None


def verify(output: Output, *, deep: bool = False) -> Verification:
    """Look at every part and compare it with the plan, and with the manifest where there is one.

    output:  only its url and options are used.
    deep:    read every part again, with checksums, and compare its SHA-256 with the manifest.
    raises:  OutputError where there is nothing to verify; StorageError where the store does not answer.
    """
    store = Store(output.url, output.options)
    listed = store.sizes("")
    names, plan = read_plan(store, listed)
    return prove(store, names, plan, listed, deep=deep)


def prove(store: Store, names: Layout, plan: Plan, listed: Mapping[str, int], *, deep: bool) -> Verification:
    """As `verify`, of a plan that is known. listed: the files directly in the output."""
    success = decode(store.read(SUCCESS)) if SUCCESS in listed else None
    manifest, problems = _manifest(store, plan, success) if SUCCESS in listed else ({}, [_unfinished(plan)])
    check = _Check(store, names, plan, manifest, deep)
    wanted = sorted(filter(is_read, listed))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as threads:
        checked = list(threads.map(lambda name: check.file(name, listed[name]), wanted))
    problems += [one.problem for one in checked if one.problem is not None]
    good = {one.shard: one for one in checked if one.shard is not None and one.problem is None}
    named = {problem.name for problem in problems}
    for shard in plan.shards:
        name = names.part(shard.index)
        if shard.index not in good and name not in named:
            rows = counted(shard.rows, "row")
            problems.append(Problem("missing", name, f"no part holds its {rows} (shard {shard.index})"))
    return Verification(
        output=store.url,
        plan_id=plan.id,
        finished=SUCCESS in listed,
        deep=deep,
        parts=len(plan.shards),
        parts_found=len(good),
        rows=plan.rows,
        rows_found=sum(one.rows for one in good.values()),
        rows_rejected=sum(one.rejected for one in good.values()),
        rows_left_out=sum(one.left_out for one in good.values()),
        files_skipped=plan.skipped,
        bytes=sum(one.bytes for one in good.values()),
        unchecked=sum(not manifest.get(names.part(shard), {}).get("sha256") for shard in good) if deep else 0,
        problems=tuple(problems),
    )


def read_plan(store: Store, listed: Mapping[str, int]) -> tuple[Layout, Plan]:
    """The plan of an output, whole and as it was written. listed: the files directly in it. raises: OutputError."""
    names = current_layout(store, listed)
    document = decode(store.read(names.plan)) if names else None
    if names is None or document is None:
        where = names.plan if names else f"{RUN}/"
        raise OutputError(f"cannot read '{store.url}': there is no whole '{where}'; expected the output of a run")
    then = {key: value for key, value in document.items() if key != "plan_id"}
    if document.get("plan_id") != digest(then) or digest(then)[:8] != names.plan8:
        raise OutputError(
            f"cannot read '{store.url}': '{names.plan}' was changed after it was written; restore it, or run again "
            "with --repair"
        )
    plan = Plan.from_document(then)
    kind = output_format(plan.identity)
    known = kind in ENCODERS
    suffix = part_suffix(kind, output_codec(plan.identity)) if known else _suffix(listed, names.plan8)
    return Layout(plan.id, len(plan.shards), suffix), plan


def _suffix(listed: Mapping[str, int], plan8: str) -> str:
    """Of the parts that are there: the plan of an old version does not tell."""
    ours = [name for name in listed if name.startswith(PART_PREFIX) and f"-{plan8}." in name]
    return f".{ours[0].rpartition('.')[2]}" if ours else make_encoder(DEFAULT_FORMAT).suffix


def _unfinished(plan: Plan) -> Problem:
    return Problem("unfinished", SUCCESS, "it is not there: the job runs, or stopped; run the same command to continue")


def _manifest(
    store: Store, plan: Plan, success: Mapping[str, Any] | None
) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """The manifest's entries by part, and what is wrong with it and with `_SUCCESS`."""
    if (success or {}).get("plan_id") != plan.id:
        return {}, [Problem("altered", SUCCESS, "it is not as a driver of this plan wrote it")]
    assert success is not None
    try:
        document = read_manifest(store, success)
    except OutputError as error:
        return {}, [Problem("altered", str(success.get("manifest") or SUCCESS), str(error))]
    totals = document.get("totals", {})
    wrong = [key for key in totals if success.get(key) != totals[key]]
    problems = [Problem("altered", SUCCESS, f"its {', '.join(wrong)} differ from the manifest")] if wrong else []
    return {str(part.get("name")): part for part in document["parts"]}, problems


@dataclass(frozen=True)
class _Check:
    store: Store
    names: Layout
    plan: Plan
    manifest: Mapping[str, Mapping[str, Any]]
    deep: bool

    def file(self, name: str, size: int) -> _Found:
        try:
            header, rows = self._header(name, size)
        except DataError as error:
            return _Found(problem=Problem("altered" if self._expected(name) else "foreign", name, str(error)))
        index = header.get("shard")
        ours = header.get("plan_id") == self.plan.id and isinstance(index, int) and 0 <= index < len(self.plan.shards)
        if not ours:
            whose = f"it is of plan {header['plan_id']}" if header.get("plan_id") else "it carries no commit header"
            return _Found(problem=Problem("altered" if self._expected(name) else "foreign", name, whose))
        assert isinstance(index, int)
        if name != self.names.part(index):
            return _Found(problem=Problem("doubled", name, f"it holds the rows of '{self.names.part(index)}'"))
        return self._part(name, size, header, rows, self.plan.shards[index])

    def _part(self, name: str, size: int, header: Mapping[str, Any], rows: int, shard: Shard) -> _Found:
        rejected = header.get("rows_rejected", 0)
        problems = [*self._counts(header, rows, shard), *self._entry(name, size, header)]
        if not problems and rejected:
            problems += self._rejects(header)
        sha256 = ""
        if not problems and self.deep:
            sha256, problems = self._content(name, size, rows)
        if problems:
            return _Found(problem=Problem("altered", name, "; ".join(problems)))
        return _Found(shard.index, rows, rejected, header.get(LEFT_OUT, 0), size, sha256)

    def _counts(self, header: Mapping[str, Any], rows: int, shard: Shard) -> Iterator[str]:
        """Header, file and plan agree on rows and on where they come from."""
        read, out, rejected = (header.get(key) for key in ("rows_in", "rows_out", "rows_rejected"))
        left_out = header.get(LEFT_OUT, 0)
        if not (read == shard.rows and out == rows and read == rows + (rejected or 0) + left_out):
            others = f"{rejected} rejected" + (f", {left_out} left out" if left_out else "")
            yield (
                f"{counted(shard.rows, 'row')} planned; its header says {read} read, {out} written, {others}; {rows:,}"
                " are in it"
            )
        expected = [{"i": cut.file, "row_groups": [cut.first, cut.stop]} for cut in shard.slices]
        stated = [{"i": one.get("i"), "row_groups": one.get("row_groups")} for one in header.get("inputs", [])]
        if stated != expected:
            yield "its header names other row groups than the plan"

    def _entry(self, name: str, size: int, header: Mapping[str, Any]) -> Iterator[str]:
        """The manifest says the same."""
        entry = self.manifest.get(name)
        if entry is None:
            if self.manifest:
                yield "the manifest does not list it"
            return
        stated = {"size": size, **{key: header.get(key) for key in ("rows_in", "rows_out", "rows_rejected", "attempt")}}
        if LEFT_OUT in header or LEFT_OUT in entry:
            stated[LEFT_OUT] = header.get(LEFT_OUT)
        for key, value in stated.items():
            if entry.get(key) != value:
                yield f"its {key} is {value}, the manifest says {entry.get(key)}"

    def _rejects(self, header: Mapping[str, Any]) -> Iterator[str]:
        name = header.get("reject_file")
        if not isinstance(name, str) or not name:
            yield f"{header.get('rows_rejected')} rows were rejected, and no reject file is named"
            return
        try:
            header_of, rows = make_encoder(DEFAULT_FORMAT).read_header(self.store, name)
            of = header_of or {}
            decoded = self._decoded(name, DEFAULT_FORMAT) if self.deep else rows
        except RunnerError as error:
            yield f"its reject file cannot be read: {error}"
            return
        if not rows == decoded == header.get("rows_rejected"):
            yield f"its reject file '{name}' holds {rows} rows, {header.get('rows_rejected')} were rejected"
        if (of.get("plan_id"), of.get("attempt")) != (self.plan.id, header.get("attempt")):
            yield f"its reject file '{name}' is of another attempt"

    def _content(self, name: str, size: int, rows: int) -> tuple[str, list[str]]:
        """Every byte: its SHA-256 against the manifest, and all columns decoded with checksums."""
        sha256 = hashlib.sha256()
        with self.store.open(name) as file:
            for start in range(0, size, _READ_BYTES):
                sha256.update(file.read(min(_READ_BYTES, size - start)))
        expected = self.manifest.get(name, {}).get("sha256")
        if expected and sha256.hexdigest() != expected:
            return "", [f"its SHA-256 is {sha256.hexdigest()[:16]}..., the manifest says {expected[:16]}..."]
        try:
            read = self._decoded(name, _format(name))
        except DataError as error:
            return "", [str(error)]
        return sha256.hexdigest(), [] if read == rows else [f"{read:,} rows decode, {rows:,} are stated"]

    def _decoded(self, name: str, kind: str) -> int:
        source = make_source(kind)
        stat = self.store.stat(name)
        if stat is None:
            raise DataError(f"'{name}' is gone", code="PART_UNREADABLE")
        columns = source.schema(self.store, stat).names
        file, _ = source.inspect(self.store, stat, columns)
        groups = len(file.row_groups)
        with source.open(self.store, input_slice([file], Slice(0, 0, groups)), columns) as reader:
            return sum(reader.read(index).num_rows for index in range(groups))

    def _header(self, name: str, size: int) -> tuple[Mapping[str, Any], int]:
        encoder, shard = make_encoder(_format(name)), shard_of_part(name)
        header, rows = encoder.read_header(self.store, name)
        if not encoder.carries_header and 0 <= shard < len(self.plan.shards):
            header = stated(self.store, self.names, shard, size)
            cuts = [{"i": cut.file, "row_groups": [cut.first, cut.stop]} for cut in self.plan.shards[shard].slices]
            header = header and {**header, "inputs": cuts}  # a receipt does not repeat them
        return header or {}, rows

    def _expected(self, name: str) -> bool:
        stem = f"-of-{len(self.plan.shards):05d}-{self.names.plan8}{self.names.suffix}"
        return name.startswith(PART_PREFIX) and name.endswith(stem)


def _format(name: str) -> str:
    """raises: DataError for a file of no format of ours."""
    if kind := format_of(name) or format_by_suffix(name):
        return kind
    raise DataError(f"'{name}' is of no format that this runner writes", code="PART_UNREADABLE", file=name)
