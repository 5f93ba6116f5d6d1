"""What must not be written down: passwords in URIs, and the secrets of this process."""

import os
import re

_SECRET_NAME = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|ACCESS_KEY|API_KEY|CREDENTIAL")
_PATHS = ("_PATH", "_FILE", "_DIR")  # of variables that say only where a secret lies
_SHORTEST = 6  # shorter values would be found in any text
# Up to the last @, for a password may hold one, or a slash.
_IN_URI = re.compile(r"([A-Za-z][\w+.-]*://)(?:[^\s'\"/@:]*:[^\s'\"]*|[^\s'\"/?#]*)@")
_PASSWORD_IN_URI = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"/@:]*:[^\s'\"]*@")
_ASSIGNED = re.compile(
    r"(?i)\b([\w-]*(?:password|passwd|secret|token|access_key(?:_id)?|api_key)['\"]?\s*[=:]\s*)"
    r"(['\"]?)[^\s'\"&,;)]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/-]{8,}=*")


def redacted(text: str) -> str:
    """Returns a text with *** for each secret: in URIs, behind `password=` and its like.

    Values of this process's environment are known by the names of their variables.
    """
    for secret in _known():
        text = text.replace(secret, "***")
    text = _IN_URI.sub(r"\1***@", text)
    text = _ASSIGNED.sub(r"\1\2***", text)
    return _BEARER.sub(r"\1 ***", text)


def has_secret(uri: str) -> bool:
    """Whether a URI holds a password or token, before its host or in its query."""
    return bool(_PASSWORD_IN_URI.match(uri) or _ASSIGNED.search(uri))


def _known() -> list[str]:
    values = {
        value
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name.upper()) and not name.upper().endswith(_PATHS)
    }
    return sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)
