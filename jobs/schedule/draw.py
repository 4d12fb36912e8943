"""What a run draws at random: the names of attempts, and the jitter of back-offs.

Owns the length of back-offs; refuses to know clocks and what is tried again. The invariant: with the same `nonce` and
`random` the same events lead to the same actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Draw:
    """What makes the id of an attempt, and the chance in back-offs.

    epoch:  of the driver.
    nonce:  draws 12 random hex digits.
    """

    epoch: int
    nonce: Callable[[], str]
    random: Random

    def back_off_s(self, failures: int) -> float:
        """How long to wait after `failures` failures in a row.

        Full jitter: workers that failed together do not come back together.
        """
        return self.random.uniform(0, min(_LONGEST_BACK_OFF_S, _BACK_OFF_S * 2 ** min(failures - 1, 10)))
