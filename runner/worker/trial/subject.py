"""The subject: what is tried out, and the rows to try it on. A value; the invariant: it never changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from runner.binding.binding import Binding
from runner.engine import Engine
from runner.model.signature import Signature
from runner.worker.trial.sample import Sample


@dataclass(frozen=True)
class Subject:
    """batch_rows: of the job; no call has more. url: of the model, for messages."""

    engine: Engine
    binding: Binding
    signature: Signature
    sample: Sample
    batch_rows: int
    url: str

    @property
    def where(self) -> str:
        return f"signature {self.signature.name!r} of model '{self.url}'"

    def on(self, sample: Sample) -> Subject:
        """The same with other rows."""
        return replace(self, sample=sample)

    def on_rows(self, rows: pa.RecordBatch) -> Subject:
        return self.on(Sample(self.binding, self.signature, rows))
