"""A cluster's job server, as a study needs it: Ray's own client, that never waits for ever."""

import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
import requests
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from search.code_package import START_NAME
from search.job_address import JobAddress, SubmitError

CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
STOP_SECONDS = 120  # from SIGTERM to SIGKILL: a driver saves what runs
READY_SECONDS = 60.0  # a head that has just started has no agent yet
FOLDER, COMMAND, ORDER = "cgan_folder", "cgan_command", "cgan_order"  # in a job's metadata

_TALKATIVE = (
    "dashboard.modules.job.sdk",
    "dashboard.modules.dashboard_sdk",
    "_private.runtime_env.packaging",
)


class ConnectionLost(ConnectionError):  # noqa: N818 - reads as what is the case
    """The job server does not answer now; it may later."""


class JobForgotten(SubmitError):  # noqa: N818
    """The job server knows no such job, or no longer."""


class Job(NamedTuple):
    """A job as the server knows it."""

    id: str
    status: str
    message: str
    node: str | None
    exit_code: int | None
    metadata: dict[str, str]
    start_time: int

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Job":
        """Reads what the server says of one."""
        return cls(
            id=content["submission_id"],
            status=content["status"],
            message=content.get("message") or "",
            node=content.get("driver_node_id"),
            exit_code=content.get("driver_exit_code"),
            metadata=content.get("metadata") or {},
            start_time=content.get("start_time") or 0,
        )


class JobServer:
    """Requests to a job server.

    Raises:
        SubmitError: It refuses the token, or there is none to give.
        ConnectionLost: It does not answer.
    """

    def __init__(self, address: JobAddress) -> None:
        self.url = address.url
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            os.environ.pop(name, None)  # they would go before the address given here
        if address.asks_for_token:
            os.environ["RAY_AUTH_MODE"] = "token"  # without it, Ray sends none
            Config.initialize("")  # and it has read it when it was imported
        self._client = _client(address.url)

    def submit(self, code: Path, job: str, metadata: dict[str, str]) -> None:
        """Starts the study that is staged in a folder, once, on the head."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self._submit(code, job, metadata)
                return
            except ConnectionLost:
                if time.monotonic() > deadline:
                    raise
            time.sleep(2.0)
            if job in {known.id for known in self.jobs()}:
                return  # only its answer was lost

    def _submit(self, code: Path, job: str, metadata: dict[str, str]) -> None:
        # No secrets here: whoever may list jobs reads the environment of each.
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
        try:
            self._client.submit_job(
                entrypoint=f". ./{START_NAME}",
                submission_id=job,
                metadata=metadata,
                runtime_env={"working_dir": str(code), "env_vars": environment},
            )
        except RuntimeError as error:  # Ray's client tells the status in words alone
            if "status code 5" in str(error):
                raise ConnectionLost(str(error)) from None
            raise SubmitError(f"{self.url}: refuses the study: {error}") from None

    def jobs(self) -> list[Job]:
        """Returns those that were submitted, the newest last."""
        found = self._get("/api/jobs/").json()
        jobs = [Job.of(content) for content in found if content.get("submission_id")]
        return sorted(jobs, key=lambda job: job.start_time)

    def job(self, job: str) -> Job:
        """Returns one.

        Raises:
            JobForgotten: There is none, such as after a new start of the head.
        """
        return Job.of(self._get(f"/api/jobs/{job}").json())

    def stop(self, job: str) -> None:
        """Asks a driver to end by SIGTERM; it is killed after `STOP_SECONDS`."""
        self._checked(self._client._do_request("POST", f"/api/jobs/{job}/stop"))

    def log(self, job: str) -> str:
        """Returns all that it has printed."""
        return str(self._get(f"/api/jobs/{job}/logs").json()["logs"])

    async def tail(self, job: str) -> AsyncIterator[str]:
        """Yields what it has printed, from the first character, and what it prints on."""
        try:
            async for text in self._client.tail_job_logs(job):
                yield text
        except (aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:
            raise ConnectionLost(type(error).__name__) from None

    def file(self, node: str, name: str) -> bytes | None:
        """Returns a file in the session's log folder of a node, byte for byte; None if absent."""
        query = {"node_id": node, "filename": name, "lines": -1, "timeout": 600}
        answer = self._client._do_request("GET", f"/api/v0/logs/file?{urlencode(query)}")
        if answer.status_code == 500 and "is not found" in answer.text:
            return None
        return bytes(self._checked(answer).content)

    def _get(self, path: str) -> requests.Response:
        return self._checked(self._client._do_request("GET", path))

    def _checked(self, answer: requests.Response) -> requests.Response:
        if answer.status_code == 404:
            raise JobForgotten(f"{self.url}: has forgotten it ({answer.text})")
        if answer.status_code >= 500:
            raise ConnectionLost(answer.text)
        if answer.status_code != 200:
            raise SubmitError(f"{self.url}: answers {answer.status_code}: {answer.text}")
        return answer


class _Client(JobSubmissionClient):
    """Ray's client, whose requests end, and which tells a lost connection from a refusal.

    Its own would wait for ever for a tunnel that swallows what it is given.
    """

    def _do_request(self, *given: Any, **named: Any) -> Any:
        try:
            timeout = (CONNECT_SECONDS, ANSWER_SECONDS)
            return super()._do_request(*given, timeout=timeout, **named)
        except requests.RequestException as error:
            raise ConnectionLost(type(error).__name__) from None


def _client(url: str) -> _Client:
    for name in _TALKATIVE:
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    try:
        return _Client(url)
    except AuthenticationError as error:
        raise SubmitError(_refused(url, str(error))) from None
    except RuntimeError as error:
        raise SubmitError(f"{url}: {error}") from None


def _refused(url: str, error: str) -> str:
    if "Invalid authentication token" in error:
        given = "RAY_AUTH_TOKEN" if "RAY_AUTH_TOKEN" in os.environ else "~/.ray/auth_token"
        why = f"refuses the token in {os.environ.get('RAY_AUTH_TOKEN_PATH', given)}"
    else:
        why = "asks for a token, and there is none here"
    return (
        f"{url}: {why}; copy the one of the cluster's head, `~/.ray/auth_token`, into the same "
        "file here (chmod 600)"
    )
