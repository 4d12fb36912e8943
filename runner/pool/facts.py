"""What is known of a worker beside its work: where it lives, how it warmed up, what its trial showed. A value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner.measure.place import Place
from runner.worker.trial.trial import Trial
from runner.worker.warm_up import WarmUp


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """trial: None where another worker proved the model."""

    place: Place
    warm_up: WarmUp
    trial: Trial | None = None

    def document(self) -> dict[str, Any]:
        """For the heartbeat of the driver."""
        tried = {} if self.trial is None else {"trial": self.trial.document()}
        return self.place.document() | {"warm_up": self.warm_up.document()} | tried
