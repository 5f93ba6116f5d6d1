"""Brings a study's record from the cluster, piece by piece, over as many connections as it takes.

The pieces lie in the log folder of the head's Ray session, whose files the job server hands out
byte for byte to who has the token: the one port of the tunnel is enough, nothing is encoded, and
no further job is started.
"""

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from cgan_core.replacing import replacing
from search.follow import Patience
from search.job_address import SubmitError
from search.job_server import ConnectionLost, Job, JobServer
from search.parcel import INDEX_NAME, Parcel, ParcelError, Piece, unpack

PARCEL_FOLDER = ".parcel"  # in the study's folder, while pieces come
TRIES = 3  # at a piece that comes whole, and is another


def job_prefix(name: str) -> str:
    """Returns how the names of all jobs begin that run the study in a folder of this name.

    And of no other name: those of `a.b` and `a_b` differ in what their digests are.
    """
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"cgan.{re.sub(r'[^A-Za-z0-9_-]', '_', name)}.{digest}."


def parcel_name(job: str) -> str:
    """Returns the name of a job's parcel in the log folder of a session."""
    return f"parcel-{job}"


def fetch(server: JobServer, job: Job, study: Path, patience: Patience) -> Parcel | None:
    """Brings what a job left into a study's folder; None where it left nothing.

    Raises:
        SubmitError: What came is not what was sent, or is of another study.
    """
    if job.node is None:
        return None
    index = _file(server, job, INDEX_NAME, patience)
    if index is None:
        return None
    folder = study / PARCEL_FOLDER
    try:
        parcel = Parcel.read(index)
        folder.mkdir(parents=True, exist_ok=True)
        for piece in parcel.pieces:
            if not piece.is_in(folder):
                _bring(server, job, piece, folder, patience)
        unpack(parcel, folder, study)
    except ParcelError as error:
        raise SubmitError(str(error)) from None
    shutil.rmtree(folder)
    return parcel


def _bring(server: JobServer, job: Job, piece: Piece, folder: Path, patience: Patience) -> None:
    for _ in range(TRIES):
        content = _file(server, job, piece.name, patience)
        if content is None:
            break
        with replacing(folder / piece.name) as temporary:
            temporary.write_bytes(content)
        if piece.is_in(folder):
            return
    raise SubmitError(f"{server.url}: {piece.name} of the record is broken or gone there")


def _file(server: JobServer, job: Job, name: str, patience: Patience) -> bytes | None:
    while True:
        try:
            content = server.file(job.node or "", f"{parcel_name(job.id)}/{name}")
        except ConnectionLost as error:
            patience.lost(error)
        else:
            patience.found()
            return content


def announce(parcel: Parcel, study: Path, say: Callable[[str], object]) -> None:
    """Says what has come."""
    size = f"{parcel.size_bytes / 2**10:,.0f} KiB packed"
    say(f"{parcel.files} files ({size}) are now in {study}; the checkpoints stay on the cluster")
