"""The identity of a job, from what preflight knows of its model, its mapping and its input; see `jobs.identity`."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.errors import RunnerError
from jobs.identity import Identity, InputIdentity, ModelIdentity
from jobs.job import Job
from jobs.section.limits import Limits
from runner.binding.binding import Binding
from runner.preflight.model.member import Member


def model_identity(member: Member) -> ModelIdentity:
    return ModelIdentity(
        digest=member.model.digest,
        version=member.model.version,
        tags=member.metagraph.tags,
        signature=member.signature.name,
        engine=member.section.engine,
        xla=member.options.xla,
        mixed_precision=member.options.mixed_precision,
        op_libraries=[sha256 for _, sha256 in member.options.op_libraries],
        trusted=sorted({*member.scanned.trusted, *member.scanned.vouched}),
        batch=member.section.batch,
        op_packages=[
            {"name": package.name, "version": package.version, "libraries": dict(package.libraries)}
            for package in member.options.op_packages
        ],
    )


def identity_of(
    job: Job, members: Sequence[Member], binding: Binding, only_rejects: str, skipped: Sequence[RunnerError]
) -> Identity:
    """only_rejects: id of the plan whose rejected rows are the input; "". skipped: why files are left out.

    Where each bit counts, so does the size of a batch: that of the binding, which is fixed then.
    """
    left_out = {error.facts["file"]: error.facts["code"] for error in skipped}
    given = InputIdentity(job.input.format, job.input.examples, only_rejects, left_out, job.input.rows)
    models = {member.name: model_identity(member) for member in members}
    model = models.get("", models)
    return Identity(model, binding.identity(), given, job.output, _settled(job.limits, binding))


def _settled(limits: Limits, binding: Binding) -> Limits:
    return limits.model_copy(update={"batch_rows": binding.batch_rows}) if limits.reproducible else limits
