"""What makes two jobs the same job: everything beside files and cuts that can change a row of the output.

Owns the words under which a plan keeps it, written and read; refuses to know how models and bindings are made. The
invariant: what is at its default is left out where older plans did not have it, so that their ids stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.section.limits import Limits
from jobs.section.output import Output


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """digest: of the content. op_libraries: SHA-256 of each, in hex. trusted: ops that only this job allows.
    batch: rows of each call, where the job says so. op_packages: name, version, and SHA-256 of each library loaded."""

    digest: str
    version: int | None
    tags: Sequence[str]
    signature: str
    engine: str
    xla: bool
    mixed_precision: str | None
    op_libraries: Sequence[str]
    trusted: Sequence[str] = ()
    batch: int | None = None
    op_packages: Sequence[Mapping[str, Any]] = ()

    def document(self) -> dict[str, Any]:
        trusted = {"trusted": list(self.trusted)} if self.trusted else {}
        batch = {"batch": self.batch} if self.batch is not None else {}
        packages = {"op_packages": [dict(package) for package in self.op_packages]} if self.op_packages else {}
        return {
            "digest": self.digest,
            "version": self.version,
            "tags": list(self.tags),
            "signature": self.signature,
            "engine": self.engine,
            "xla": self.xla,
            "mixed_precision": self.mixed_precision,
            "op_libraries": list(self.op_libraries),
            **packages,
            **trusted,
            **batch,
        }


@dataclass(frozen=True, slots=True)
class InputIdentity:
    """only_rejects: id of the plan whose rejected rows are the input. skipped: url of a file left out -> its code.
    rows: what else decides which rows there are and what their values mean, see `Input.rows`."""

    format: str | None
    examples: Any = None
    only_rejects: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        more = {"examples": self.examples, "only_rejects": self.only_rejects, "skipped": dict(self.skipped)}
        return {"format": self.format} | {name: value for name, value in more.items() if value} | dict(self.rows)


@dataclass(frozen=True, slots=True)
class Identity:
    """model: one alone, or several by name. columns: see `Binding.identity`. limits: where each bit counts, with the
    size of a batch settled."""

    model: ModelIdentity | Mapping[str, ModelIdentity]
    columns: Mapping[str, Any]
    input: InputIdentity
    output: Output
    limits: Limits

    def document(self) -> dict[str, Any]:
        """As plain JSON values, the part of a plan that `difference` compares by name."""
        return {
            **self._models(),
            "columns": dict(self.columns),
            "input": self.input.document(),
            "output": {
                "format": self.output.format,
                "compression": self.output.compression,
                "tensor_encoding": self.output.tensor_encoding,
            },
            "limits": {
                "shard_bytes": self.limits.shard_bytes,
                "shard_rows": self.limits.shard_rows,
                "on_bad_row": self.limits.on_bad_row,
                **_policies(self.limits),
            },
        }

    def _models(self) -> dict[str, Any]:
        if isinstance(self.model, ModelIdentity):
            return {"model": self.model.document()}
        return {"models": {name: model.document() for name, model in self.model.items()}}


def model_digests(identity: Mapping[str, Any]) -> dict[str, str]:
    """Name -> digest of each model; one alone has the name "". identity: of a plan."""
    models = identity["models"] if "models" in identity else {"": identity["model"]}
    return {name: str(model["digest"]) for name, model in models.items()}


def skipped_files(identity: Mapping[str, Any]) -> dict[str, str]:
    """Files that were bad when the plan was made, and are no part of it: url -> code. identity: of a plan."""
    return dict(identity.get("input", {}).get("skipped", {}))


def output_format(identity: Mapping[str, Any]) -> str:
    """In which format the parts of a plan are written; "" in the plan of an old version. identity: of a plan."""
    return str((identity.get("output") or {}).get("format", ""))


def output_codec(identity: Mapping[str, Any]) -> str:
    """How they are compressed; "" in the plan of an old version. identity: of a plan."""
    return str((identity.get("output") or {}).get("compression", ""))


def _policies(limits: Limits) -> dict[str, Any]:
    """What else decides which rows are rejected, and where bits count, how rows are batched.

    Left out at its default, so that older plans stay what they are.
    """
    usual = Limits(nonfinite="pass" if limits.nonfinite == "pass" else None)  # the same rows, said or not
    names = ("on_bad_file", "nonfinite", "nan_output", "reject_input", "max_row_bytes", "reproducible")
    unusual = {name: value for name in names if (value := getattr(limits, name)) != getattr(usual, name)}
    return unusual | ({"batch_rows": limits.batch_rows} if limits.reproducible else {})
