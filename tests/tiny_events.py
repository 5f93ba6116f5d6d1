"""The event with which a trial begins, for records made by hand."""

from collections.abc import Mapping

from search.cell import cell_key
from search.event_fields import ParamValue
from search.events import Proposed, Stage


def proposed(
    number: int, params: Mapping[str, ParamValue] | None = None, stage: Stage = "model"
) -> Proposed:
    """A trial is proposed; its one parameter is its number where `params` are not given."""
    params = {"x": number} if params is None else dict(params)
    return Proposed(
        number=number,
        stage=stage,
        stage_index=0,
        params=params,
        cell=cell_key(params),
        seed=number,
    )
