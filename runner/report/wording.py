"""Messages are written in the words of the command; here they are said again in those of the Python API.

Owns which flag and which command is which argument and which function. The invariant: an error that leaves the API
names nothing that only the command line has; what is quoted, as a path is, stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import Interrupted, RunnerError

# A flag stands behind a space, a bracket or a quote, never within a name.
_START, _END = r"(?<![^\s(`'])", r"(?![\w-])"
FLAGS = {
    r"--overwrite": "overwrite=True",
    r"--repair": "repair=True",
    r"--takeover": "takeover=True",
    r"--wait-for-driver 6m": "wait_for_driver_s=360",
    r"--var ([^\s=]+)=\.\.\.": r"vars={'\1': ...}",
    r"--in-process": "in_process=True",
    r"--address (HOST:6379|auto|local)": r"address='\1'",
    r"--trust-op for each, or 'trust: \[[^\n\]]*\]' under 'model',": "`trust=[...]` of the model",
    r"--trust-model, or 'trust: true' under 'model',": "`trust=True` of the model",
    r"--op-package (\w+)": r"`op_packages=['\1']` of the model",
    r"--(set|where|limit|sample|only-rejects)(?=:)": "override",
    r"--map '[^\n]*', or `column:` in a job file": "`column` of the input",
    r"--allow-open-cluster": "allow_open_cluster=True",
    r"--env (\w+)": r"env=['\1']",
    r"--working-dir with the folder that it is in": "the command `runner submit` sends its folder",
}
_COMMANDS = {"verify": "verify", "rejects": "rejects", "status": "status", "plan": "plan", "sweep": "sweep"}
_WORDS = [
    *((re.compile(f"{_START}{flag}{_END}"), said) for flag, said in FLAGS.items()),
    (re.compile(r"run (?:the same command|this command|it) again to continue"), "make the same call again to continue"),
    (re.compile(r"run the same command( again)?"), "make the same call again"),
    (re.compile(r"the same command"), "the same call"),
]
_COMMAND = re.compile(rf"(?P<quote>['`]?)runner (?P<name>{'|'.join(_COMMANDS)})\b(?: (?P<place>[^\s'`;,]+))?(?P=quote)")


def in_python(text: str) -> str:
    """`text`, a message or a summary, in the words of the API."""
    for pattern, said in _WORDS:
        text = pattern.sub(said, text)
    return _COMMAND.sub(_called, text)


def _called(found: re.Match[str]) -> str:
    place = f"'{found['place']}'" if found["place"] else "..."
    return f"`runner.{_COMMANDS[found['name']]}({place})`"


@contextmanager
def python_words(interrupted: str = "interrupted") -> Iterator[None]:
    """What a function of the API raises says its next step in Python. interrupted: what Ctrl-C is told by."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted(interrupted) from None
    except RunnerError as error:
        error.message = in_python(error.message)
        error.args = (error.message,)
        raise
