"""The jobs API of a running cluster, as Ray's own client speaks it.

Owns how the cluster is reached: its address, its token, how long an answer may take. Refuses to know what a job is.
The invariants: a token goes only to a cluster that wants one, and no call waits for ever.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from connectors.secret import redact
from jobs.errors import CapacityError, JobError
from runner.cluster.submit import Request, Submission
from runner.cluster.token import PLACES, token_at_hand

T = TypeVar("T")

_OPEN = frozenset({200, 404})  # 404: jobs are not served, all else is
_PROBE_S = 10.0
_SETTLE_S = 60.0  # a cluster that was just started takes jobs a little later than it answers
_ANSWER_S = 60.0  # also for the upload of a working directory, piece by piece
# Ray's own variables win over an address that is given, and would send the job to another cluster.
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class RayJobs:
    """The jobs of the cluster at `address`, 'http://HOST:8265'.

    allow_open: although every process that reaches it can run code there.
    raises:     JobError for an address of another kind; CapacityError where nothing answers, where the token is missing
                or wrong, or where the cluster is open, not on this machine, and not `allow_open`.
    """

    def __init__(self, address: str, *, allow_open: bool = True) -> None:
        self._target = _checked(address)
        answer = _answer_to_strangers(self._target)
        if answer in _OPEN and not allow_open and not _loopback(self._target):
            raise CapacityError(
                f"the cluster at '{self._target}' is open: all that reach it can run code there and read what this job"
                " may read; start Ray with RAY_AUTH_MODE=token, or accept it with --allow-open-cluster"
            )
        headers = {"Authorization": f"Bearer {token}"} if answer in (401, 403) and (token := token_at_hand()) else None
        with _quiet():
            self._client = self._ask(lambda: _Client(self._target, headers=headers))

    def submit(self, id: str, request: Request) -> bool:
        until = time.monotonic() + _SETTLE_S
        while True:
            try:
                with _quiet():
                    self._client.submit_job(
                        submission_id=id,
                        entrypoint=request.entrypoint,
                        runtime_env=request.runtime_env,
                        metadata=request.metadata,
                    )
                return True
            except Exception as error:
                # Taken, or the answer was lost: only what is there now tells.
                with suppress(CapacityError):
                    if self.find(id) is not None:
                        return False
                if "try again later" not in str(error) or time.monotonic() > until:
                    raise self._refusal(error) from error
            time.sleep(1)

    def find(self, id: str) -> Submission | None:
        try:
            return _submission(self._client.get_job_info(id))
        except Exception as error:
            if "status code 404" in str(error):
                return None
            raise self._refusal(error) from error

    def all(self) -> Sequence[Submission]:
        jobs = (job for job in self._ask(self._client.list_jobs) if "runner.plan" in (job.metadata or {}))
        return [_submission(job) for job in sorted(jobs, key=lambda job: job.start_time or 0)]

    def logs(self, id: str) -> str:
        return str(self._ask(lambda: self._client.get_job_logs(id)))

    def stop(self, id: str) -> bool:
        return bool(self._ask(lambda: self._client.stop_job(id)))

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> CapacityError | JobError:
        if "ray[default]" in str(error):
            return JobError(
                "cannot reach a cluster's jobs: this Ray was installed without them; install savedmodel-runner[cluster]"
            )
        if isinstance(error, AuthenticationError):
            return CapacityError(
                f"the cluster at '{self._target}' did not accept the token: put the right one into {PLACES}"
            )
        lines = [line.strip() for line in redact(str(error)).splitlines() if line.strip()]
        # The server answers a mistake with a traceback, whose last line is the reason.
        reason = lines[-1].strip("'\"}. ") if lines else type(error).__name__
        return CapacityError(f"the cluster at '{self._target}' did not obey: {reason[:500]}")


class _Client(JobSubmissionClient):  # type: ignore[misc]
    def __init__(self, address: str, headers: dict[str, str] | None) -> None:
        kept = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
        try:
            super().__init__(address, headers=headers)
        finally:
            os.environ.update(kept)

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        # Ray sets no time limit: a head that is gone without a word would be waited for until the end of days.
        return super()._do_request(method, endpoint, timeout=_ANSWER_S, allow_redirects=False, **options)


def _submission(job: Any) -> Submission:
    return Submission(
        id=str(job.submission_id),
        status=str(getattr(job.status, "value", job.status)),
        exit_code=job.driver_exit_code,
        message=redact(job.message or ""),
        metadata=dict(job.metadata or {}),
        started_s=job.start_time / 1000 if job.start_time else None,
        ended_s=job.end_time / 1000 if job.end_time else None,
    )


def _checked(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise JobError(
            f"cannot submit to '{redact(address)}': expected the address of Ray's dashboard, 'http://HOST:8265'; a"
            " token belongs into RAY_AUTH_TOKEN"
        )
    return address.rstrip("/")


def _loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answer_to_strangers(address: str) -> int:
    """The HTTP status of a request for the jobs without a token. raises: CapacityError."""
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(f"{address}/api/jobs/", timeout=_PROBE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as answer:
        if answer.code < 500:
            return answer.code  # 401, 403, or that of a proxy which sends people to its own door
        raise CapacityError(
            f"no Ray jobs at '{address}': it answered with HTTP status {answer.code}; look at the cluster's dashboard"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise CapacityError(
            f"no cluster at '{address}': {reason}; expected Ray's dashboard there, which is on port 8265 of the head"
        ) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray logs to the user's terminal what it uploads, and where it looks for a cluster."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
