"""What decides the last bits of an answer, and whether a NaN shows in it, beside the model and the rows.

Owns the words under which that is kept; refuses to know how it is found out. The invariant: what is not known, in the
documents of an older version for example, is left out, and differs from nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

_MOST_NAMED = 10  # of those that share a value


@dataclass(frozen=True, slots=True)
class Numerics:
    """Of one process that calls a model. `UNKNOWN`: nothing is known, or no model was called.

    tensorflow:  its version.
    onednn:      whether its CPU kernels may come from oneDNN.
    xla, mixed_precision: as the job says.
    tf32:        whether a GPU may round float32 to 19 bits before it multiplies; None without a GPU.
    threads:     that share an op.
    cpu, isa:    the kind of the CPU, and those of its instruction sets that kernels are chosen by.
    gpu:         its kind.
    environment: (variable, value) of those that are set and change numbers, by name.
    """

    tensorflow: str = ""
    onednn: bool | None = None
    xla: bool | None = None
    mixed_precision: str = ""
    tf32: bool | None = None
    threads: int = 0
    cpu: str = ""
    isa: str = ""
    gpu: str = ""
    environment: tuple[tuple[str, str], ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        # Every receipt holds one, and a run has a million receipts: what comes from another process is one object.
        return _shared, tuple(getattr(self, one.name) for one in fields(self))

    def document(self) -> dict[str, Any]:
        """As plain JSON values: what is known."""
        known = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in known.items() if value or value is False} | (
            {"environment": dict(self.environment)} if self.environment else {}
        )

    @classmethod
    def from_document(cls, document: object) -> Numerics:
        """From a commit header, a receipt or a manifest. Further keys of a later version are left out."""
        given = document if isinstance(document, Mapping) else {}
        known = {one.name: given[one.name] for one in fields(cls) if one.name in given}
        try:
            known["environment"] = tuple(sorted(dict(known.get("environment", {})).items()))
            return _shared(**known)
        except (TypeError, ValueError):  # it was edited
            return UNKNOWN

    def facts(self) -> dict[str, str]:
        """For people: what is known, each variable of the environment on its own."""
        texts = {False: "off", True: "on"}
        known = {name: value for name, value in self.document().items() if name != "environment"}
        return {
            name: texts.get(value, str(value)) if isinstance(value, bool) else str(value)
            for name, value in known.items()
        } | dict(self.environment)


UNKNOWN = Numerics()
_kinds: dict[Numerics, Numerics] = {}


def _shared(*values: Any, **named: Any) -> Numerics:
    made = Numerics(*values, **named)
    return _kinds.setdefault(made, made)


@dataclass(frozen=True, slots=True)
class Difference:
    """values: what a fact, or a variable of the environment, is -> with whom."""

    fact: str
    values: Mapping[str, Sequence[str]]

    def __str__(self) -> str:
        return f"{self.fact}: {', '.join(f'{value} ({_named(who)})' for value, who in self.values.items())}"


def differences(seen: Mapping[Numerics, Iterable[str]]) -> list[Difference]:
    """In what they differ. seen: value -> with whom. What is not known of some differs from nothing."""
    known = {one: list(who) for one, who in seen.items() if one != UNKNOWN}
    facts = {one: one.facts() for one in known}
    variables = {name for one in known for name, _ in one.environment}
    found = []
    for fact in dict.fromkeys(name for each in facts.values() for name in each):
        values: dict[str, list[str]] = {}
        for one, who in known.items():
            if fact in facts[one] or fact in variables:
                values.setdefault(facts[one].get(fact, "not set"), []).extend(who)
        if len(values) > 1:
            found.append(Difference(fact, values))
    return found


def unlike(first: Numerics, own: Numerics) -> list[str]:
    """In what `own` is not as `first`, a sentence each. A fact that `first` does not know is none, but for a GPU and
    variables, which it says by leaving them out."""
    there, here = first.facts(), own.facts()
    told = {*there, "gpu", *(name for name, _ in own.environment)}
    return [
        f"{fact}: {there.get(fact, 'not set')} there, {here.get(fact, 'not set')} here"
        for fact in dict.fromkeys([*there, *here])
        if fact in told and there.get(fact) != here.get(fact)
    ]


def _named(who: Sequence[str]) -> str:
    ordered = list(dict.fromkeys(who))
    more = f" and {len(ordered) - _MOST_NAMED:,} more" if len(ordered) > _MOST_NAMED else ""
    return ", ".join(ordered[:_MOST_NAMED]) + more
