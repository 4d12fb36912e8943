"""A model's standing: whether it was seen to work, which decides what a refusal says: of the rows, or of the model.

Knows refusals and their words; refuses to know how rows are read and called. The invariants: a model that took a row
is never accused; one that took none is, once, where several rows are refused alone and in the same words, and rows of
other places of the input are, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from jobs.errors import DataError, ModelCallError, PoisonError, RunnerError
from jobs.words import counted

FEW = 3  # rows: fewer that are refused say nothing against a model
PROBED = 8  # rows of a batch, from all over it, that are called alone before it is cut into pieces
Elsewhere = Callable[[], Sequence[RunnerError] | None]
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


class Standing:
    """Of a model in one worker; several threads may tell and ask.

    where:     signature and model, for messages; `facts`: the same for scripts.
    members:   of several models: name -> its signature, and where that is; a refusal names one of them.
    elsewhere: calls rows of other places alone; what each was refused with, or None where one was taken.
    trusted:   its rows were refused before, so that it is not to blame if it refuses all of them.
    """

    def __init__(
        self,
        where: str,
        elsewhere: Elsewhere,
        *,
        trusted: bool = False,
        members: Mapping[str, tuple[str, str]] | None = None,
        **facts: str,
    ) -> None:
        self._where, self._elsewhere, self._facts = where, elsewhere, facts
        self._members = members or {}
        self._settled = trusted

    @property
    def doubted(self) -> bool:
        """It took no row yet, and nothing else speaks for it."""
        return not self._settled

    def note_taken(self) -> None:
        """A call went well: from now on what is refused is the fault of rows."""
        self._settled = True

    def weigh(self, refused: Sequence[RunnerError], elsewhere: Elsewhere | None = None) -> None:
        """refused: what rows of one place were refused with, each alone, where none was taken. elsewhere: else that of
        this model.

        raises: PoisonError MODEL_FAULT where it is the model's fault.
        """
        refused = _of_model(refused)
        if self._settled or not refused:
            return
        if not _alike(refused):
            self._settled = len(refused) >= FEW  # it speaks of values: it has read them
            return
        found = (elsewhere or self._elsewhere)()
        others = [] if found is None else _of_model(found)
        if found is None or not _alike([*refused, *others]):
            self._settled = True
        elif max(len(refused), len(others)) >= FEW:
            raise self._fault(refused[0], len(refused) + len(others))

    def _fault(self, error: RunnerError, rows: int) -> PoisonError:
        where, facts, name = self._where, self._facts, str(error.facts.get("model", ""))
        if name in self._members:
            signature, where = self._members[name]
            facts = facts | {"model": name, "signature": signature}
        return PoisonError(
            f"cannot run {where}: it refuses every row that was tried, {counted(rows, 'row')} from all over the"
            f" input, each alone and with the same words, so that it is the model and not the rows: {error.message};"
            " call it by hand with a row that is known to be good: if it refuses that, export it again; if it takes it,"
            " all of these are bad rows, and an input that begins with a good one is scored",
            code="MODEL_FAULT",
            status=str(error.facts.get("code", "")),
            rows=rows,
            **facts,
        )


def with_rows(error: PoisonError, rows: int) -> PoisonError:
    """A model's fault that a call with so many rows met, which says so."""
    if "rows" in error.facts:
        return error
    return PoisonError(f"{error.message} [a call with {counted(rows, 'row')}]", **error.facts | {"rows": rows})


def _of_model(refused: Sequence[RunnerError]) -> Sequence[RunnerError]:
    """Without rows that could not even be fed."""
    return [error for error in refused if not isinstance(error, DataError)]


def _alike(refused: Sequence[RunnerError]) -> bool:
    """Whether all are refusals of the model in the same words, wherever in memory it met them."""
    words = {_ADDRESS.sub("0x", error.message) for error in refused}
    return len(words) == 1 and all(isinstance(error, ModelCallError) for error in refused)
