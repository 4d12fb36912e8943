"""A run in the background of a notebook: start it, look at it, wait for it, cancel it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jobs.errors import StoppedError
from jobs.job import Job
from jobs.notebook import facts
from runner.driver.launch import RunOptions, Stopper, launch
from runner.driver.result import Result
from runner.measure.snapshot import Snapshot
from runner.report.display import Display, NotebookDisplay, in_notebook
from runner.report.text import progress_line
from runner.report.wording import in_python, python_words


class Handle:
    """A run in the background. `progress` is its latest Snapshot, None until work begins.

    screen: of a notebook; it was opened by the cell that started the run, and shows how it ends.
    """

    def __init__(
        self, job: Job, options: RunOptions, display: Callable[[], Display], screen: NotebookDisplay | None = None
    ) -> None:
        self.progress: Snapshot | None = None
        self._job, self._options, self._display = job, options, display
        self._screens = [] if screen is None else [screen]  # that show how it ends
        self._shown: list[NotebookDisplay] = []  # that show how far it is, beside that of `display`
        self._stopper = Stopper()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @python_words("interrupted; the run goes on, and `cancel()` stops it")
    def wait(self, timeout_s: float | None = None) -> Result:
        """The Result. raises: the error that ended the run; TimeoutError if it still runs after `timeout_s`."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"the job still runs after {timeout_s} s; wait longer, or cancel()")
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def cancel(self) -> None:
        """Stop the run; what is finished stays, and the same job continues. Returns when the workers are stopped."""
        self._stopper.stop(StoppedError("the job was cancelled; run it again to continue"))
        self._thread.join(10)

    @property
    def story(self) -> str:
        """How far it is, or how it ended."""
        if self._error is not None:
            return f"{type(self._error).__name__}: {self._error}"
        if self._result is not None:
            return in_python(self._result.summary())
        return progress_line(self.progress) if self.progress else "starting"

    def __repr__(self) -> str:
        return f"<Run to {self._job.output.url}: {self.story}>"

    def _repr_html_(self) -> str:
        share = self.progress.share if self.progress else 1.0 if self._result else 0.0
        if self._result is not None:
            told = self._result.lines
        else:
            told = {"progress": self.story} if self._error is None else {type(self._error).__name__: str(self._error)}
        return facts("Run", {"output": self._job.output.url} | told, share=share)

    def _ipython_display_(self) -> None:
        """In a notebook each display of a handle goes on with the run; elsewhere it is one line."""
        if not in_notebook():
            print(repr(self))  # noqa: T201  # what IPython in a terminal shows of it
            return
        screen = NotebookDisplay(self._repr_html_())
        self._shown.append(screen)
        self._screens.append(screen)
        if not self.running:  # it may have ended before that
            screen.end(self._repr_html_())

    def _run(self) -> None:
        try:
            with python_words():
                self._result = launch(
                    self._job, self._options, display=self._display, watch=self._watch, stopper=self._stopper
                )
        except BaseException as error:  # raised again where the run is waited for
            self._error = error
        for screen in list(self._screens):
            screen.end(self._repr_html_())

    def _watch(self, at: Snapshot) -> None:
        self.progress = at
        for screen in list(self._shown):
            screen.show(at)
