"""`services.json`: what a client on this host must know of the services that run here."""

import os
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from search.private_file import write_private

REMEDY = "`python -m search.services up` writes it anew; remove it to do without services"


class ServicesError(ValueError):
    """Services that cannot be started or used, with file or flag and remedy."""


class Services(BaseModel):
    """The services of this user on this host; it holds no secret itself.

    Attributes:
        tracking_uri: Of the MLflow server.
        username: The user that clients are there.
        password_file: That user's password and nothing else; readable by its owner alone.
        storage: The folder that all machines share, in whose `runs/` studies go; None for none.
        ca_cert: Certificates to check the server's by; None for those of the system.
        state: The folder of the services themselves.
        host: Name of the machine that they run on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tracking_uri: str
    username: str
    password_file: str
    storage: str | None
    ca_cert: str | None
    state: str
    host: str

    def password(self) -> str:
        """Reads the password.

        Raises:
            ServicesError: There is none to read.
        """
        try:
            return Path(self.password_file).read_text().strip()
        except OSError as error:
            raise ServicesError(
                f"{services_path()}: `password_file`: {self.password_file} cannot be read "
                f"({error.strerror}); {REMEDY}"
            ) from None


def services_path() -> Path:
    """Returns where the file is: below `XDG_CONFIG_HOME`, else below `~/.config`."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "cgan" / "services.json"


def read_services() -> Services | None:
    """Returns the services of this user on this host; None where there are none.

    Those of another host are none: a home may be shared.

    Raises:
        ServicesError: The file is there and cannot be understood.
    """
    path = services_path()
    try:
        services = Services.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServicesError(f"{path}: {error.strerror}; {REMEDY}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = f"`{key}`: " if key else ""
        raise ServicesError(f"{path}: {where}{first['msg']}; {REMEDY}") from None
    return services if services.host == socket.gethostname() else None


def write_services(services: Services) -> None:
    """Writes the file, for its owner alone."""
    path = services_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, services.model_dump_json(indent=2) + "\n")
