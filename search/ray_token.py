"""The token that a Ray cluster asks everybody for: whether it does, and this user's own.

Who reaches a cluster that asks for none can run code there.
"""

import functools
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import _raylet
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray.exceptions import AuthenticationError

MODE_VARIABLE = "RAY_AUTH_MODE"
_core: Any = _raylet  # which has no types
_PROBE_SECONDS = 60.0
_ASKED, _NO_ANSWER = 3, 4
# What this process has of tokens is not asked: another one calls without any.
_PROBE = f"""
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1])
except AuthenticationError:
    sys.exit({_ASKED})
except Exception:
    sys.exit({_NO_ANSWER})
"""


@functools.cache
def asks_for_token(address: str) -> bool:
    """Whether a cluster refuses a call without a token, found by one.

    Args:
        address: `HOST:PORT` of its GCS.

    Raises:
        ConnectionError: It cannot be asked.
    """
    without = {name: value for name, value in os.environ.items() if not _is_own(name)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, address],
            env={**without, MODE_VARIABLE: "disabled", "RAY_py_gcs_connect_timeout_s": "10"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConnectionError(f"no answer in {_PROBE_SECONDS:g} s") from None
    if done.returncode not in (0, _ASKED):
        raise ConnectionError("no answer; where it has TLS, see docs/security.md")
    return done.returncode == _ASKED


def _is_own(name: str) -> bool:
    return name.startswith("RAY_AUTH_")


def takes_own_token(address: str) -> bool:
    """Whether a cluster takes what this process would send it, be it a token or none."""
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    if own_mode_is_token() and not _loader().has_token(ignore_auth_mode=True):
        return False
    try:
        _core.GcsClient(address=address)
    except AuthenticationError:
        return False
    except Exception:  # that it is no cluster is told better by who joins it
        return True
    return True


def own_mode_is_token() -> bool:
    """Whether this process sends its token, and has the Ray that it starts ask for it."""
    return bool(_core.get_authentication_mode() == _core.AuthenticationMode.TOKEN)


def keep_own_token() -> None:
    """Makes a token where this user has none, and keeps others from reading it.

    Ray would make one that all users of this host can read.

    Raises:
        OSError: It cannot be written.
    """
    path = Path.home() / ".ray" / "auth_token"
    if not _loader().has_token(ignore_auth_mode=True):
        _write_new(path)
        _loader().reset_cache()
    elif path.exists() and path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
        path.chmod(0o600)


def _write_new(path: Path) -> None:
    """Writes a token that is there whole or not at all; one that came before it stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as f:
            f.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _loader() -> Any:
    return _core.AuthenticationTokenLoader.instance()
