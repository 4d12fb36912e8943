"""What makes two jobs the same job: everything that changes a row of the output, and nothing else."""

from __future__ import annotations

from typing import Any

from jobs.job import Job, Limits
from runner.binding.binding import Binding
from runner.engine import ModelOptions
from runner.model.signature import MetaGraph, ModelSpec, Signature


def identity_of(
    job: Job,
    model: ModelSpec,
    metagraph: MetaGraph,
    signature: Signature,
    binding: Binding,
    options: ModelOptions,
) -> dict[str, Any]:
    """All that can change a result beside files and cuts, in the words of the job file."""
    return {
        "model": {
            "digest": model.digest,
            "version": model.version,
            "tags": list(metagraph.tags),
            "signature": signature.name,
            "engine": job.model.engine,
            "xla": options.xla,
            "mixed_precision": options.mixed_precision,
            "op_libraries": [sha256 for _, sha256 in options.op_libraries],
        },
        "columns": binding.identity(),
        "input": {"format": job.input.format} | ({"examples": job.input.examples} if job.input.examples else {}),
        "output": {
            "format": job.output.format,
            "compression": job.output.compression,
            "tensor_encoding": job.output.tensor_encoding,
        },
        "limits": {
            "shard_bytes": job.limits.shard_bytes,
            "shard_rows": job.limits.shard_rows,
            "on_bad_row": job.limits.on_bad_row,
            **_policies(job.limits),
        },
    }


def _policies(limits: Limits) -> dict[str, Any]:
    """What else decides which rows are rejected; left out at its default, so that older plans stay what they are."""
    usual = Limits()
    names = ("on_bad_file", "nonfinite", "nan_output", "reject_input", "max_row_bytes")
    return {name: value for name in names if (value := getattr(limits, name)) != getattr(usual, name)}
