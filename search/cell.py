"""A cell: one configuration, under a name that equal ones share."""

import json
from collections.abc import Mapping

from search.event_fields import ParamValue

_SIGNIFICANT_DIGITS = 12


def cell_key(params: Mapping[str, ParamValue]) -> str:
    """Names the cell of a configuration: JSON with sorted keys and canonical numbers.

    Floats are rounded to 12 significant digits; 1 and 1.0 name the same cell, and so do 0 and
    -0.0, while `True`, `1` and `"1"` differ.
    """
    pairs = (f"{json.dumps(name)}:{_canonical(params[name])}" for name in sorted(params))
    return "{" + ",".join(pairs) + "}"


def _canonical(value: ParamValue) -> str:
    if isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, float):
        value = float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
        if not value.is_integer() or abs(value) >= 10**_SIGNIFICANT_DIGITS:
            return repr(value)
    return str(int(value))
