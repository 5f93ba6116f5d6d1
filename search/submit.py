"""Submits a study to a cluster's job server, follows it, and brings its record back.

The driver runs on the cluster's head, so that it goes on whatever becomes of this process; the
same command follows it again.
"""

import argparse
import hashlib
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.code_package import stage
from search.command_line import DONE, FAULT, INTERRUPTED
from search.fetch import announce, fetch, job_prefix
from search.follow import Patience, ShownLog, follow
from search.history import JOURNAL_NAME
from search.job_address import JobAddress, SubmitError
from search.job_server import COMMAND, FOLDER, ORDER, ConnectionLost, Job, JobForgotten, JobServer
from search.study import StudySpec
from search.study_folder import check_free
from search.submission_mark import SubmissionMark
from search.summary import SUMMARY_NAME, describe_summary

SECOND_SECONDS = 5.0  # for a second Ctrl-C


class Submission:
    """One study on a cluster, as it is seen from here.

    Args:
        address: of the job server.
        output: the study's folder here; the one on the cluster has the same name.
        spec: the study.
        options: of `search.run`.
        words: the same as they were given.
        start, resume: the commands that start the study, and that go on with it.
    """

    def __init__(
        self,
        address: JobAddress,
        output: Path,
        spec: StudySpec,
        options: argparse.Namespace,
        words: Sequence[str],
        *,
        start: str,
        resume: str,
    ) -> None:
        self._address, self._output, self._options = address, output, options
        self._spec = spec
        self._start, self._resume = start, resume
        self._name = output.absolute().name
        self._order: dict[str, Any] = {
            "words": travelling(words),
            "name": self._name,
            "start": start,
            "resume": resume,
        }
        self._mark = SubmissionMark(output)
        self._patience = Patience(_say)
        # A dry run has nothing to bring back: its text is what is wanted.
        shown = sys.stdout if options.dry_run and not options.json else sys.stderr
        self._log = ShownLog(lambda text: (shown.write(text), shown.flush()))

    def run(self) -> int:
        """Starts or finds the study's job, and stays with it; returns the exit code.

        Raises:
            SubmitError: It cannot be submitted or followed.
        """
        if not self._options.dry_run:
            self._check_output()
        try:
            server = JobServer(self._address)
            job = self._find(server) or self._submit(server)
        except ConnectionLost as error:
            raise SubmitError(f"{self._address.url}: does not answer ({error})") from None
        try:
            ended = self._follow(server, job)
        except KeyboardInterrupt:
            return self._leave(server, job)
        return self._finish(server, ended)

    def _follow(self, server: JobServer, job: str) -> Job:
        try:
            return follow(server, job, self._log, self._patience)
        except JobForgotten as error:
            raise SubmitError(
                f"{error}: the head was started anew; the study is where it was recorded. Go on "
                f"with it by:\n  {self._resume}"
            ) from None

    def _check_output(self) -> None:
        if self._mark.exists():
            return
        if (self._output / JOURNAL_NAME).exists():
            raise SubmitError(
                f"{self._output}: holds a study that was not submitted; give another --output"
            )
        check_free(self._spec, self._output)

    def _find(self, server: JobServer) -> str | None:
        """Returns the job to follow: one that runs, or one whose record was not fetched yet.

        Raises:
            SubmitError: Another study runs in the folder.
        """
        if self._options.dry_run:
            return None
        mine = [job for job in server.jobs() if job.metadata.get(FOLDER) == self._name]
        if not mine:
            return None
        last = mine[-1]
        same = last.metadata.get(ORDER) == self._digest()
        if last.ended:
            fetched = self._mark.read().get("fetched") == last.id
            if not same or fetched or last.status != "SUCCEEDED":
                return None
        elif not same:
            raise SubmitError(
                f"{self._name}: runs on the cluster with other options or another space file "
                f"(job {last.id}); follow it by\n  {last.metadata.get(COMMAND)}\n"
                "or give another --output to run beside it"
            )
        _say(f"following job {last.id}")
        return last.id

    def _submit(self, server: JobServer) -> str:
        job = f"{job_prefix(self._name)}{secrets.token_hex(4)}"
        metadata = {COMMAND: self._start, ORDER: self._digest()}
        before = self._mark.read()
        if not self._options.dry_run:
            metadata[FOLDER] = self._name
            self._name_request(job, before)
        with tempfile.TemporaryDirectory() as folder:
            try:
                package = stage(self._order, self._options.space, Path(folder))
                _say(f"submitting to {server.url}: {package}")
                server.submit(package.folder, job, metadata)
            except ValueError as error:
                if not self._options.dry_run:
                    self._mark.write(before)
                raise SubmitError(str(error)) from None
        _say(f"job {job}; Ctrl-C leaves it to itself")
        return job

    def _name_request(self, job: str, before: Mapping[str, Any]) -> None:
        """Says by which request the study is extended: that of an equal order that failed."""
        order = self._digest()
        request = before.get("request") if before.get("order") == order else None
        self._order["request"] = request or job
        # Before it is submitted: this process may be gone before the answer has come.
        self._mark.change(job=job, order=order, request=self._order["request"])

    def _digest(self) -> str:
        """Returns what tells whether a job does what is asked here; all of them resume."""
        words = [word for word in self._order["words"] if word != "--resume"]
        asked = json.dumps(words).encode() + self._options.space.read_bytes()
        return hashlib.sha256(asked).hexdigest()[:16]

    def _leave(self, server: JobServer, job: str) -> int:
        """Detaches; a second Ctrl-C meanwhile asks the driver to end."""
        try:
            _say(f"left; the study goes on on the cluster. Follow it again by:\n  {self._start}")
            _say(f"Ctrl-C within {SECOND_SECONDS:g} s stops it there (all is saved)")
            time.sleep(SECOND_SECONDS)
            return INTERRUPTED
        except KeyboardInterrupt:
            pass
        try:
            server.stop(job)
            _say("asked to stop; it saves what runs")
            self._finish(server, self._follow(server, job))
            _say(f"go on with it by:\n  {self._resume}")
        except ConnectionLost as error:
            _say(f"no connection: it was not stopped ({error})")
        except KeyboardInterrupt:
            _say(f"left; its record comes by:\n  {self._start}")
        return INTERRUPTED

    def _finish(self, server: JobServer, job: Job) -> int:
        """Brings the record of a job that has ended, and prints what came of it."""
        code = _exit_code(job)
        if self._options.dry_run:
            return code
        try:
            parcel = fetch(server, job, self._output, self._patience)
        except KeyboardInterrupt:
            _say(f"left; the rest of the record comes by:\n  {self._start}")
            return INTERRUPTED
        if parcel is None:
            if code in (DONE, FAULT):
                _say(f"job {job.id} left no record to bring back: {job.message}")
            return code or FAULT
        self._mark.change(job=job.id, fetched=job.id)
        if code == DONE:
            self._mark.change(request=None, order=None)
        announce(parcel, self._output, _say)
        if code == DONE:
            self._print(json.loads((self._output / SUMMARY_NAME).read_text()))
        return code

    def _print(self, summary: Mapping[str, Any]) -> None:
        shown = sys.stderr if self._options.json else sys.stdout
        shown.write(describe_summary(summary, self._output) + "\n")
        if self._options.json:
            sys.stdout.write(json.dumps(summary) + "\n")


def travelling(words: Sequence[str]) -> list[str]:
    """Returns the words of a command that mean the same on the cluster."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in ("--address", "--output"):
            skip = True
        elif word != "--json" and not word.startswith(("--address=", "--output=")):
            kept.append(word)
    return kept


def _exit_code(job: Job) -> int:
    if job.status == "STOPPED":
        return INTERRUPTED
    if job.exit_code is not None and job.exit_code >= 0:
        return job.exit_code
    return DONE if job.status == "SUCCEEDED" else FAULT


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
