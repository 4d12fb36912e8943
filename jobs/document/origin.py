"""`${env:NAME}` and `${date:FORMAT}`: what a command finds when it begins, and the texts that are made of it.

Owns how these names are written; refuses to know which text holds one. The invariants: one command has one instant, in
UTC, for every text; a date depends on that instant alone, never on a locale or a time zone of the machine; and what was
settled where a job was submitted is not made again elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

ENVIRONMENT = "env:"

_ENVIRONMENT = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_DATE = re.compile(r"date(?:([+-]\d{1,5})([dh]))?:(.*)", re.DOTALL)
_KIND = re.compile(r"date[^:]*:|env:")
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_DIRECTIVES = "YmdHMSjyGVu"  # the same in every locale and on every system; %G, %V, %u: ISO year, week and day of week
_UNITS = {"d": "days", "h": "hours"}


@dataclass(frozen=True, slots=True)
class Origin:
    """environment: of the command. now: when it began.

    settled, told: `found` and `told` of `Named`, as the command had them that submitted the job.
    """

    environment: Mapping[str, str]
    now: datetime
    settled: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def current(cls, settled: Mapping[str, str] | None = None, told: Mapping[str, str] | None = None) -> Origin:
        return cls(os.environ, datetime.now(UTC), settled or {}, told or {})

    def value(self, name: str) -> str | None:
        """What a name of these kinds stands for; None where the environment does not say it.

        raises: ValueError for a name that is misspelt, in words that follow it.
        """
        if name in self.settled:
            return self.settled[name]
        if name.startswith(ENVIRONMENT):
            return self._of_environment(name)
        match = _DATE.fullmatch(name)
        if match is None:
            raise ValueError(
                "with an offset that is none; expected '${date:...}', '${date-1d:...}' or '${date+2h:...}'"
            )
        number, unit, form = match.groups()
        then = self.now.astimezone(UTC) + (timedelta(**{_UNITS[unit]: int(number)}) if unit else timedelta())
        wrong = [found for found in _DIRECTIVE.findall(form) if not found or found not in _DIRECTIVES]
        if wrong or "%" not in form:
            found = f"'%{wrong[0]}'" if wrong else "no directive"
            known = " ".join(f"%{one}" for one in _DIRECTIVES)
            raise ValueError(f"whose format holds {found}; expected a format such as '%Y-%m-%d', of {known}")
        return _DIRECTIVE.sub(lambda directive: then.strftime(directive[0]), form)

    def _of_environment(self, name: str) -> str | None:
        match = _ENVIRONMENT.fullmatch(name)
        if match is None:
            raise ValueError("that names no environment variable; expected '${env:NAME}'")
        value = self.environment.get(match[1])
        if value and not value.isprintable():
            raise ValueError("whose value holds a line break, or another character that no text of a job may have")
        return value or None


def is_found(name: str) -> bool:
    """Whether the name of a variable is of these kinds, however misspelt."""
    return _KIND.match(name) is not None
