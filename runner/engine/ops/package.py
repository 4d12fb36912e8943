"""The libraries of op packages that a model needs: found where a package is installed, refused where it does not fit.

Knows what packages state beside their files, and imports none of them. The invariants: a package that is for another
TensorFlow is refused before any file of it is opened, and a library is loaded only where it is, byte for byte, the one
that was planned; where it lies is for each machine to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from jobs.errors import ModelError, offenders, one_of
from runner.engine import ModelOptions, OpPackage
from runner.engine.status import checked_library
from runner.scan.ops import minor_of, tensorflow_version
from runner.scan.packages import FOLLOWED_BY, Package, install, normal, packages

_TENSORFLOW = ("tensorflow", "tensorflow_cpu", "tensorflow_rocm", "tensorflow_intel", "tf_nightly")


@dataclass(frozen=True)
class Chosen:
    """packages: those that hold ops of the model, with the libraries that register them. idle: the others, by name."""

    packages: tuple[OpPackage, ...] = ()
    idle: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for people."""
        return tuple(
            f"`op_packages` names {name}, and the model has none of its ops: nothing of it is loaded"
            for name in self.idle
        )


def choose(names: Sequence[str], ops: Collection[str], known: Mapping[str, Package] | None = None) -> Chosen:
    """What has to be loaded of the packages that a job names.

    ops:    of the model. known: another table than the one of `runner.scan.packages`.
    raises: ModelError with all that is wrong with them.
    """
    table = packages() if known is None else known
    wanted = list(dict.fromkeys(map(normal, names)))
    problems = [_unknown(name, table) for name in wanted if name not in table]
    named = [table[name] for name in wanted if name in table]
    problems += _doubled(named, ops)
    found = []
    for package in named:
        try:
            found.append(_found(package, ops))
        except _Unfit as problem:
            problems.append(str(problem))
    if len(problems) == 1:
        raise ModelError(f"cannot use the op packages of the job: {problems[0]}", code=_CODE)
    if problems:
        raise ModelError(f"cannot use the op packages of the job:\n{offenders(problems)}", code=_CODE)
    idle = tuple(each.name for each in found if not each.libraries)
    return Chosen(tuple(each for each in found if each.libraries), idle)


def trusted_ops(names: Sequence[str]) -> dict[str, bool]:
    """The ops that a job trusts by naming their package -> whether they are stateful."""
    named = [packages()[name] for name in map(normal, names) if name in packages()]
    return {op: stateful for package in named for op, stateful in package.ops.items()}


def libraries(model: ModelOptions) -> Iterator[str]:
    """The paths here of all libraries that a model needs, in the order to load them.

    raises: ModelError for one that is not here, or not the one that was planned.
    """
    for path, sha256 in model.op_libraries:
        yield checked_library(path, sha256)
    for package in model.op_packages:
        try:
            distribution = _fitting(package.name, package.version)
        except _Unfit as problem:
            raise ModelError(f"cannot load ops of the model: {problem}", code=_CODE) from None
        if distribution.version != package.version:
            raise ModelError(
                f"cannot load ops of the model: {package.name} {distribution.version} is installed here, and"
                f" {package.version} was planned; expected the same on the driver and on every worker",
                code=_CODE,
            )
        for path, sha256 in package.libraries:
            yield checked_library(str(distribution.locate_file(path)), sha256)


_CODE = "OP_PACKAGE"


class _Unfit(Exception):
    """Why a package cannot be used here."""


def _unknown(name: str, table: Mapping[str, Package]) -> str:
    if follower := FOLLOWED_BY.get(name):
        return f"'{name}' has no release for this TensorFlow: its ops are in {follower}, so name that one"
    return (
        f"no package of ops '{name}' is known: known are {one_of(list(table), name)}; the libraries of another one are"
        " named by their paths, `op_libraries: [/path/of/ops.so]`"
    )


def _doubled(named: Sequence[Package], ops: Collection[str]) -> list[str]:
    """TensorFlow loads the second of two libraries that register one op, and finds out when the op is called."""
    return [
        f"{one.name} and {other.name} both register op '{min(shared)}': name one of them"
        for index, one in enumerate(named)
        for other in named[index + 1 :]
        if (shared := one.ops.keys() & other.ops.keys() & set(ops))
    ]


def _found(package: Package, ops: Collection[str]) -> OpPackage:
    distribution = _fitting(package.name, "")
    held = []
    for path in package.holding(ops):
        try:
            with Path(str(distribution.locate_file(path))).open("rb") as file:
                held.append((path, hashlib.file_digest(file, "sha256").hexdigest()))
        except OSError as error:
            raise _Unfit(
                f"cannot read '{path}' of {package.name} {distribution.version}: {error.strerror or error};"
                f" known are the versions {', '.join(package.versions)}"
            ) from error
    return OpPackage(package.name, distribution.version, tuple(held))


def _fitting(name: str, version: str) -> metadata.Distribution:
    """An installed package that is for the installed TensorFlow. version: that is wanted, if any."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        command = f"pip install {name}=={version}" if version else install(name)
        raise _Unfit(f"{name} is not installed here: {command}, here and on every worker") from None
    installed = tensorflow_version()
    if wanted := for_another(distribution.requires or (), installed):
        raise _Unfit(
            f"{name} {distribution.version} is for {wanted}, and TensorFlow {installed} is installed here: each of its"
            f" releases is for one version of TensorFlow; pip install -U {name}, or the TensorFlow that it is for"
        )
    return distribution


def for_another(requires: Sequence[str], installed: str) -> str:
    """What a package states that it is for, where that is another TensorFlow; "" where it fits or nothing is stated.

    A patch release keeps what libraries rely on: one for 2.21.0 alone fits 2.21.1 too.
    """
    for text in requires:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if normal(wanted.name) not in _TENSORFLOW or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        pinned = [minor_of(each.version) for each in wanted.specifier if each.operator == "=="]
        if not wanted.specifier.contains(installed, prereleases=True) and minor_of(installed) not in pinned:
            return f"{wanted.name}{wanted.specifier}"
    return ""
