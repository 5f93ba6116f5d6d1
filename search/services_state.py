"""The folder of the services on this host: settings, secrets, and what was started."""

import fcntl
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from search.private_file import write_private
from search.service_process import ServiceProcess
from search.services_file import ServicesError

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "ceph", "lustre", "gluster", "9p", "fuse.", "efs")
_UNPRIVILEGED = ("postgres", "nobody")


class Settings(BaseModel):
    """What `services up` was told; a later one without a flag keeps what it was.

    Attributes:
        storage: The folder that all machines share.
        artifacts: Where artifacts go instead of below `storage`: a folder or `s3://...`.
        host: The address to listen at.
        port: The port to listen at.
        allowed_hosts: Names besides those of this machine by which the server may be called.
        tls_cert: Certificate of the server.
        tls_key: Its key.
        tls_ca: Certificates by which clients check it; None for those of their system.
        with_ray: Whether both are kept up as long as this is a head of Ray's, and no longer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    storage: str | None = None
    artifacts: str | None = None
    host: str = "127.0.0.1"
    port: int = 5000
    allowed_hosts: list[str] = []
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    with_ray: bool = False


class State(BaseModel):
    """What was asked for and what was started for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    settings: Settings
    postgres: ServiceProcess | None = None
    mlflow: ServiceProcess | None = None
    keeper: ServiceProcess | None = None


class StateFolder:
    """A folder on a disk of this machine.

    Args:
        path: The folder; made by `prepare`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.database_user = _unprivileged() if os.geteuid() == 0 else None

    @property
    def postgres(self) -> Path:
        """The database's own folder."""
        return self.path / "postgres"

    @property
    def log(self) -> Path:
        """What the MLflow server says."""
        return self.path / "mlflow.log"

    @property
    def keeper_log(self) -> Path:
        """What was done to keep them up."""
        return self.path / "keeper.log"

    @property
    def database_log(self) -> Path:
        """What PostgreSQL says."""
        return self.path / "postgres.log"

    def secret(self, name: str) -> Path:
        """Returns the file of a secret."""
        return self.path / "secrets" / name

    def prepare(self) -> None:
        """Makes what is missing of it.

        Raises:
            ServicesError: It lies on a network, or where the database's user cannot reach it.
        """
        kind = _file_system(self.path)
        if kind.startswith(NETWORK_FILE_SYSTEMS):
            raise ServicesError(
                f"--state {self.path}: must be on a disk of this machine, but is on {kind}, "
                "where a database can be corrupted; name another folder"
            )
        if self.path.is_dir() and any(self.path.iterdir()) and not self.secret("").is_dir():
            raise ServicesError(
                f"--state {self.path}: must be empty or the folder of services, but holds other "
                "files, and its permissions would be changed; name another folder"
            )
        # Others may pass through to the database's folder, and read nothing on the way.
        self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.path.chmod(0o700 if self.database_user is None else 0o711)
        self.secret("").mkdir(exist_ok=True, mode=0o700)
        if not self.postgres.exists():
            self.postgres.mkdir(mode=0o700)
            if self.database_user is not None:
                entry = pwd.getpwnam(self.database_user)
                os.chown(self.postgres, entry.pw_uid, entry.pw_gid)
        self._check_reach()

    def read(self) -> State | None:
        """Returns the state; None before the first `write`.

        Raises:
            ServicesError: It cannot be understood.
        """
        path = self.path / "state.json"
        try:
            return State.model_validate_json(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ServicesError(f"{path} cannot be read: {error}") from None

    def write(self, state: State) -> None:
        """Writes the state."""
        write_private(self.path / "state.json", state.model_dump_json(indent=2) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps another `up` or `down` waiting meanwhile."""
        with (self.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def size_bytes(self) -> int:
        """Returns what the folder takes on disk."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                try:
                    total += os.lstat(Path(folder, name)).st_blocks * 512
                except FileNotFoundError:  # the database works meanwhile
                    continue
        return total

    def _check_reach(self) -> None:
        if self.database_user is None:
            return
        user = self.database_user
        command = ["test", "-w", str(self.postgres)]
        found = subprocess.run(command, user=user, group=user, extra_groups=[], check=False)
        if found.returncode != 0:
            closed = [
                str(parent)
                for parent in self.postgres.parents
                if not parent.stat().st_mode & stat.S_IXOTH
            ]
            raise ServicesError(
                f"--state {self.path}: PostgreSQL runs as user {user} here, who cannot enter "
                f"{closed[-1] if closed else self.postgres}; name another folder, such as "
                "/var/lib/cgan-services"
            )


def default_state() -> Path:
    """Returns the folder of this user's services; root's is one that `postgres` may enter."""
    if os.geteuid() == 0:
        return Path("/var/lib/cgan-services")
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "cgan" / "services"


def _unprivileged() -> str:
    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise ServicesError("PostgreSQL refuses to run as root, and there is no user postgres")


def _file_system(path: Path) -> str:
    """Returns the kind of file system that a path is, or would be, on."""
    while not path.exists():
        path = path.parent
    path = path.resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[at] for at in (path, *path.parents) if at in mounts), "")
