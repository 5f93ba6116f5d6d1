from search.domains import FloatDomain
from search.space import Space
from search.unit_cube import point_at


def test_the_last_step_is_the_upper_end() -> None:
    # 0.0 + 6 * 0.1 is 0.6000000000000001, which lies outside.
    space: Space = {"d_dropout": (FloatDomain(type="float", low=0.0, high=0.6, step=0.1),)}
    assert point_at(space, [0.999]) == {"d_dropout": 0.6}
