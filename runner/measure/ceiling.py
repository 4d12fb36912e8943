"""How near a run came to what its model and its machines can do, and what stood between.

Pure: figures in, figures and one sentence out. The two ceilings: what the model reaches alone, on rows that are in
memory already; and what the cores reach when every one of them is busy all the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.words import counted
from runner.measure.stage import COMPUTE, STAGES

Culprit = Literal["model", "compile", "pictures", "source", "sink", "copies", "cores", "work", "start"]

_BUSY = 0.85  # of the machine ceiling: what is left is not worth looking for
_SLOWED = 0.5  # of its own pace: something else takes the model's cores
_FEW_ROWS_BYTES = 16 * 2**20  # a part below this costs the store more by its number than by its bytes


@dataclass(frozen=True)
class Use:
    """What one worker, or all together, did in a run.

    seconds: by stage, see `runner.measure.stage`. busy_s: from the first dispatch to the last commit, without tuning.
    cpu_s:   of its process. cpus: cores it may use. calls: session calls in flight.
    ceiling: rows/s of the model alone, 0 where it was not measured.
    """

    rows: int = 0
    shards: int = 0
    bytes: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    cpus: float = 0.0
    calls: int = 1
    batch_rows: int = 0
    ceiling: float = 0.0
    rss_bytes: int = 0
    pad_places: int = 0  # for values of padded inputs, and how many of them the rows filled
    pad_values: int = 0
    shape_rows: int = 0  # of row groups of several shapes, and in how many batches they went
    shape_batches: int = 0
    filled_rows: int = 0  # that only filled batches up; no rows of the job
    most_rows: int = 0  # that the model takes in one call; 0: any number
    compilations: int = 0  # by XLA; for how many sets of shapes; the seconds of the calls that they came with, those
    # before the first row of the job too
    compiled_shapes: int = 0
    compile_s: float = 0.0
    workers: int = 1

    @property
    def padding(self) -> float | None:
        """The share of padded inputs that was padding, from 0 to 1; None: nothing is padded."""
        return 1 - self.pad_values / self.pad_places if self.pad_places else None

    @property
    def stages(self) -> Mapping[str, float]:
        """`seconds`, where compiling before the first row, and in attempts that failed, is told too."""
        compiled = max(self.compile_s, self.seconds.get("compile", 0.0))
        return {**self.seconds, "compile": compiled} if compiled else self.seconds

    @property
    def recompiles(self) -> bool:
        """Whether XLA compiled more often than the shapes explain."""
        return self.compilations > self.compiled_shapes

    @property
    def pace(self) -> float:
        """How fast the model ran while it ran, as a share of what it reaches alone; 1 where that is not known."""
        run_s = self.seconds.get("run", 0.0) / self.calls
        return (self.rows + self.filled_rows) * self.workers / (run_s * self.ceiling) if run_s and self.ceiling else 1.0

    @property
    def shares(self) -> dict[Culprit, float]:
        """Where the compute threads' time went, in seconds. What is waited for between two attempts is the sink's as
        long as something is being published, and else the wait for work."""
        spent = {stage: self.seconds.get(stage, 0.0) for stage in STAGES}
        behind = min(spent["idle"], spent["wait_encode"] + spent["publish"])
        return {
            "model": spent["run"] / self.calls,
            "compile": spent["compile"] / self.calls,
            "pictures": spent["pictures"] / self.calls,
            "source": spent["wait_read"],
            "sink": spent["wait_write"] + behind,
            "copies": (spent["feed"] + spent["fetch"]) / self.calls,
            "work": spent["idle"] - behind,
        }


@dataclass(frozen=True, slots=True)
class Settings:
    """What the job says that a suggestion may change. readers: threads of each worker."""

    compression: str = "zstd"
    readers: int = 1
    batch_rows: int | None = None  # as fixed by the job; None: auto, or fixed by the model
    gpus: float = 0


@dataclass(frozen=True, slots=True)
class Ceilings:
    """In rows/s; 0 where not known."""

    rows_per_s: float
    compute: float
    machine: float

    @property
    def of_compute(self) -> float:
        """The share of the compute ceiling that was reached, from 0 to 1."""
        return min(1.0, self.rows_per_s / self.compute) if self.compute else 0.0

    @property
    def of_machine(self) -> float:
        return min(1.0, self.rows_per_s / self.machine) if self.machine else 0.0

    def document(self) -> dict[str, float]:
        return {
            "rows_per_s": round(self.rows_per_s, 1),
            "compute_rows_per_s": round(self.compute, 1),
            "machine_rows_per_s": round(self.machine, 1),
            "of_compute": round(self.of_compute, 3),
            "of_machine": round(self.of_machine, 3),
        }


@dataclass(frozen=True, slots=True)
class Bottleneck:
    culprit: Culprit
    sentence: str  # what holds the run
    suggestion: str  # what would help, in the words of the job file

    def __str__(self) -> str:
        return f"{self.sentence}; {self.suggestion}" if self.suggestion else self.sentence


def together(uses: Iterable[Use]) -> Use:
    """The use of all workers as one."""
    known = list(uses)
    seconds = {stage: sum(use.seconds.get(stage, 0.0) for use in known) for stage in STAGES}
    return Use(
        rows=sum(use.rows for use in known),
        shards=sum(use.shards for use in known),
        bytes=sum(use.bytes for use in known),
        seconds=seconds,
        cpu_s=sum(use.cpu_s for use in known),
        cpus=sum(use.cpus for use in known),
        calls=max((use.calls for use in known), default=1),
        batch_rows=max((use.batch_rows for use in known), default=0),
        ceiling=sum(use.ceiling for use in known),
        rss_bytes=max((use.rss_bytes for use in known), default=0),
        pad_places=sum(use.pad_places for use in known),
        pad_values=sum(use.pad_values for use in known),
        shape_rows=sum(use.shape_rows for use in known),
        shape_batches=sum(use.shape_batches for use in known),
        filled_rows=sum(use.filled_rows for use in known),
        most_rows=min((use.most_rows for use in known if use.most_rows), default=0),
        compilations=sum(use.compilations for use in known),
        compiled_shapes=sum(use.compiled_shapes for use in known),
        compile_s=sum(use.compile_s for use in known),
        workers=sum(use.workers for use in known),
    )


def ceilings(use: Use, busy_s: float) -> Ceilings:
    """use: of all workers. busy_s: from the first dispatch to the last commit, without tuning."""
    rows_per_s = use.rows / busy_s if busy_s > 0 else 0.0
    machine = use.cpus * use.rows / use.cpu_s if use.cpu_s > 0 else 0.0
    # What was reached can be reached: a ceiling below it was measured in a bad moment.
    return Ceilings(rows_per_s, max(use.ceiling, rows_per_s) if use.ceiling else 0.0, max(machine, rows_per_s))


def bottleneck(use: Use, reached: Ceilings, settings: Settings) -> Bottleneck:
    """What held the run, in one sentence, and the one thing that would help."""
    shares = use.shares
    whole = sum(shares.values())
    if whole <= 0:
        return Bottleneck("start", "too short to tell what held it: no part was written", "")
    culprit = max(shares, key=lambda name: shares[name])
    share = shares[culprit] / whole
    if culprit == "compile":
        return _compiling(use, share)
    if reached.of_machine >= _BUSY and culprit != "work" and not (culprit == "model" and share >= _BUSY):
        return _cores(use, reached)
    if culprit == "model" and use.pace < _SLOWED and not use.most_rows:  # such a model waits for rows of its own accord
        return _shared(use)
    judge = {
        "model": _model,
        "pictures": _pictures,
        "source": _source,
        "sink": _sink,
        "copies": _copies,
        "work": _work,
    }[culprit]
    return judge(use, share, reached, settings)


def _model(use: Use, share: float, reached: Ceilings, settings: Settings) -> Bottleneck:
    alone = f", at {reached.of_compute:.0%} of what it reaches alone" if reached.compute else ""
    sentence = f"the model is the bottleneck: it takes {share:.0%} of the workers' time{alone}"
    if use.most_rows:
        advice = (
            f"it takes at most {counted(use.most_rows, 'row')} a call: export it without a limit or batching of its"
            " own, or use more workers ('workers: {count: ...}')"
        )
    elif settings.batch_rows is not None and settings.batch_rows < 1024:
        advice = (
            f"try larger batches: the job fixes {counted(settings.batch_rows, 'row')};"
            " 'limits: {batch_rows: auto}' finds out"
        )
    elif settings.gpus:
        advice = "give it more workers ('workers: {count: ...}'), each with a GPU"
    else:
        advice = "give it more cores ('workers: {count: ..., cpus: ...}'), or a GPU ('gpus: 1')"
    return Bottleneck("model", sentence, advice)


def _compiling(use: Use, share: float) -> Bottleneck:
    sentence = f"compiling is the bottleneck: it takes {share:.0%} of the workers' time"
    if use.recompiles:
        advice = "run it without 'model: {xla: true}'; `runner plan` names the inputs"
        return Bottleneck("compile", f"{sentence}, because values decide shapes", advice)
    if use.compilations <= use.workers:
        return Bottleneck("compile", f"{sentence}, once in each worker", "use fewer workers: 'workers: {count: ...}'")
    shapes = f"{sentence}, for {counted(use.compiled_shapes, 'shape')}"
    if use.pad_places:
        return Bottleneck("compile", shapes, "pad to fewer widths: a larger 'multiple_of', or fewer 'buckets'")
    return Bottleneck(
        "compile", shapes, "give the rows fewer shapes, or pad their lists ('inputs: {NAME: {pad: ...}}')"
    )


def _source(use: Use, share: float, reached: Ceilings, settings: Settings) -> Bottleneck:
    read, decode = use.seconds.get("read", 0.0), use.seconds.get("decode", 0.0)
    if read >= decode:
        sentence = f"the source is the bottleneck: the model waits {share:.0%} of the time, mostly for bytes to arrive"
        advice = f"fetch more at once: 'workers: {{readers: {2 * settings.readers}}}' instead of {settings.readers}"
    else:
        sentence = (
            f"reading is the bottleneck: the model waits {share:.0%} of the time, mostly for row groups to be decoded"
        )
        cpus = use.cpus
        if settings.readers < cpus and reached.of_machine < _BUSY:
            advice = (
                f"decode more at once: 'workers: {{readers: {2 * settings.readers}}}' instead of {settings.readers}"
            )
        else:
            advice = "give each worker more cores: 'workers: {cpus: ...}'"
    return Bottleneck("source", sentence, advice)


def _sink(use: Use, share: float, reached: Ceilings, settings: Settings) -> Bottleneck:
    encode = use.seconds.get("encode", 0.0)
    publish = use.seconds.get("publish", 0.0)
    if encode >= publish:
        sentence = f"writing is the bottleneck: the model waits {share:.0%} of the time for batches to be encoded"
        if settings.compression in ("zstd", "gzip"):
            advice = f"try a lighter compression: 'output: {{compression: lz4}}' instead of {settings.compression}"
        else:
            advice = "write fewer outputs ('columns: {outputs: ...}'), or use more workers ('workers: {count: ...}')"
    else:
        sentence = f"the sink is the bottleneck: the model waits {share:.0%} of the time for parts to be published"
        if use.bytes < _FEW_ROWS_BYTES * use.shards:
            advice = "publish fewer and larger parts: a larger 'limits: {shard_bytes: ...}'"
        elif settings.compression in ("none", "snappy", "lz4"):
            advice = f"publish fewer bytes: 'output: {{compression: zstd}}' instead of {settings.compression}"
        else:
            advice = "use more workers ('workers: {count: ...}'), so that more parts are on their way at once"
    return Bottleneck("sink", sentence, advice)


def _pictures(use: Use, share: float, reached: Ceilings, settings: Settings) -> Bottleneck:
    sentence = f"decoding pictures is the bottleneck: it takes {share:.0%} of the workers' time"
    advice = "give each worker more cores ('workers: {cpus: ...}'), or store pictures nearer to the size of the tensor"
    return Bottleneck("pictures", sentence, advice)


def _copies(use: Use, share: float, reached: Ceilings, settings: Settings) -> Bottleneck:
    sentence = (
        f"copying is the bottleneck: {share:.0%} of the workers' time goes into making tensors of columns and back"
    )
    return Bottleneck(
        "copies", sentence, "write the input in the model's own types and shapes: `runner plan` tells them"
    )


def _cores(use: Use, reached: Ceilings) -> Bottleneck:
    work = {
        stage: use.seconds.get(stage, 0.0)
        for stage in ("read", "decode", "feed", "pictures", "compile", "run", "fetch", "encode", "publish")
    }
    most = max(work, key=lambda stage: work[stage])
    sentence = (
        f"the cores are the bottleneck: all {use.cpus:g} are busy ({reached.of_machine:.0%} of what they can do),"
        f" most of all with '{most}'"
    )
    return Bottleneck("cores", sentence, "use more of them: more cores for each worker, or more workers")


def _shared(use: Use) -> Bottleneck:
    sentence = f"the cores are the bottleneck: the model runs at {use.pace:.0%} of its own pace, others take its cores"
    advice = "look what else runs on these machines, or let fewer workers share one ('workers: {cpus: ...}')"
    return Bottleneck("cores", sentence, advice)


def _work(use: Use, share: float, reached: Ceilings, settings: Settings) -> Bottleneck:
    sentence = f"the workers wait for work {share:.0%} of the time: shards are too small, or the driver is too busy"
    return Bottleneck("work", sentence, "cut larger shards: a larger 'limits: {shard_bytes: ...}'")


def waits(use: Use) -> dict[str, float]:
    """What the compute thread waited for, in seconds."""
    shares = use.shares
    return {"source": shares["source"], "sink": shares["sink"], "work": shares["work"]}


def computing_s(seconds: Mapping[str, float]) -> float:
    """How long one attempt had the compute thread."""
    return sum(seconds.get(stage, 0.0) for stage in COMPUTE)
