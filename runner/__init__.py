"""savedmodel-runner: batch inference for TensorFlow SavedModels on Ray.

    import runner
    job = runner.Job(model="models/churn", input="users/*.parquet", output="scores")
    runner.plan(job)                             # what would be done
    result = runner.run(job)                     # blocks, shows progress; takes a job file, too
    handle = runner.start(job)                   # returns at once
    runner.attach("scores").wait()               # follow a run of another process, from its output alone
    runner.status("scores"), runner.rejects("scores"), runner.verify("scores").holds
    runner.diff("scores", left="a.score", right="b.score")  # in what two models differ
    runner.inspect("models/churn")               # what a model declares

Importing this package imports neither TensorFlow nor Ray nor pyarrow; the functions do, when they are called.
What goes wrong is a RunnerError with a message; RUNNER_TRACEBACK=1 shows a notebook the whole traceback, too.
"""


def _refuse_shadows() -> None:
    """`jobs` and `connectors` are common names: a user with folders of that name must learn why nothing works."""
    from importlib.util import find_spec
    from pathlib import Path

    home = Path(__file__).resolve().parents[1]
    for name in ("jobs", "connectors"):
        spec = find_spec(name)
        places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
        if not places or Path(str(places[0])).resolve().parent != home:
            raise ImportError(
                f"cannot import the package '{name}' of savedmodel-runner: found {places or 'none'}, expected it in"
                f" '{home}'; something of that name comes first on sys.path: rename it, or start from another folder"
            )


_refuse_shadows()

# After the check, which explains why these would fail.
from typing import TYPE_CHECKING as _TYPES  # noqa: E402

from jobs.errors import Interrupted, RunnerError  # noqa: E402
from jobs.job import Job  # noqa: E402
from jobs.load import read_text as read_text  # noqa: E402
from jobs.section.columns import Columns, ExampleColumns, InputColumn, NullFill, OutputColumn, Pad  # noqa: E402
from jobs.section.input import Input  # noqa: E402
from jobs.section.limits import Limits  # noqa: E402
from jobs.section.model import Model  # noqa: E402
from jobs.section.output import Output  # noqa: E402
from jobs.section.workers import Workers  # noqa: E402
from runner.api import (  # noqa: E402
    VERSION,
    attach,
    diff,
    inspect,
    load_job,
    plan,
    rejects,
    run,
    start,
    status,
    submit,
    sweep,
    verify,
)

if _TYPES:
    from connectors.output.look.sweep import Sweep
    from connectors.output.status import Status
    from connectors.output.verification import Verification
    from runner.cluster.submit import Submitted
    from runner.compare.agreement import Agreement
    from runner.driver.handle import Handle
    from runner.driver.result import Result
    from runner.driver.watch import Watch
    from runner.measure.snapshot import Snapshot
    from runner.model.signature import ModelSpec
    from runner.preflight.preflight import Preflight

__version__ = VERSION
__all__ = [
    "Agreement",
    "Columns",
    "ExampleColumns",
    "Handle",
    "Input",
    "InputColumn",
    "Interrupted",
    "Job",
    "Limits",
    "Model",
    "ModelSpec",
    "NullFill",
    "Output",
    "OutputColumn",
    "Pad",
    "Preflight",
    "Result",
    "RunnerError",
    "Snapshot",
    "Status",
    "Submitted",
    "Sweep",
    "Verification",
    "Watch",
    "Workers",
    "attach",
    "diff",
    "inspect",
    "load_job",
    "plan",
    "rejects",
    "run",
    "start",
    "status",
    "submit",
    "sweep",
    "verify",
]
# What the functions return: loaded when somebody names it.
_RETURNED = {
    "Agreement": "runner.compare.agreement",
    "Handle": "runner.driver.handle",
    "ModelSpec": "runner.model.signature",
    "Preflight": "runner.preflight.preflight",
    "Result": "runner.driver.result",
    "Snapshot": "runner.measure.snapshot",
    "Status": "connectors.output.status",
    "Submitted": "runner.cluster.submit",
    "Sweep": "connectors.output.look.sweep",
    "Verification": "connectors.output.verification",
    "Watch": "runner.driver.watch",
}


def __getattr__(name: str) -> object:
    if name not in _RETURNED:
        raise AttributeError(f"module 'runner' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_RETURNED[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__file__", "__name__", "__path__", "__version__"]
