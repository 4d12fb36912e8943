"""What a job says about how its model computes, as engines take it: each library of ops found here, with its digest.

Refuses to load anything. The invariant: what is named and cannot be used is an error, all of it at once, before a
worker starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from connectors.store.scratch import expanded
from jobs.errors import ModelError
from jobs.section.model import Model
from runner.engine import ModelOptions
from runner.engine.ops.package import Chosen, choose
from runner.scan.program import Program


def model_options(model: Model, program: Program) -> tuple[ModelOptions, Chosen]:
    """With what was chosen of op packages. program: the metagraph that is loaded; every op of it has to be registered.

    raises: ModelError for libraries or packages of ops that are not here, or do not fit.
    """
    problems: list[ModelError] = []
    libraries: tuple[tuple[str, str], ...] = ()
    packages = Chosen()
    try:
        libraries = _libraries(model.op_libraries)
    except ModelError as error:
        problems.append(error)
    try:
        packages = choose(model.op_packages, {node.op for _, node in program.nodes()})
    except ModelError as error:
        problems.append(error)
    if len(problems) > 1:
        raise ModelError("\n".join(map(str, problems)), code=problems[-1].facts["code"])
    if problems:
        raise problems[0]
    return ModelOptions(model.xla, model.mixed_precision, libraries, packages.packages), packages


def _libraries(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Path and SHA-256 of each."""
    libraries = []
    for name in names:
        path = str(expanded(name).absolute())
        try:
            if Path(path).exists() and not Path(path).is_file():  # who opens a pipe waits for its other end
                raise OSError("it is no regular file")
            with Path(path).open("rb") as file:
                libraries.append((path, hashlib.file_digest(file, "sha256").hexdigest()))
        except OSError as error:
            raise ModelError(
                f"cannot read the op library '{name}': {error.strerror or error};"
                " expected a shared library at a path that every worker sees"
            ) from error
    return tuple(libraries)
