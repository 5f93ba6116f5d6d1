"""What a simulated study tries: chance, or the real search's model over virtual trials."""

from collections.abc import Mapping

from cgan_core.streams import stream
from search.domains import Params
from search.frozen_trial import to_frozen_trial
from search.sampling import make_sampler, proposal_seed, propose, rebuild_study
from search.simulation import SimulatedState, SimulatedTrial
from search.space import Space
from search.trial import TrialStateName
from search.unit_cube import point_at

_BLOCK = 1024
_TOLD: Mapping[SimulatedState, TrialStateName] = {
    "RUNNING": "RUNNING",
    "PAUSED": "RUNNING",
    "COMPLETED": "COMPLETED",
    "STOPPED": "STOPPED",
    "INFEASIBLE": "INFEASIBLE",
}


class RandomSampler:
    """Independent uniform points of a space; the one of a number depends on the seed alone."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._block: tuple[int, list[list[float]]] = (-1, [])

    def propose(self, number: int, trials: Mapping[int, SimulatedTrial]) -> Params:
        """Returns the point of this number; cheapest if numbers ascend."""
        index, place = divmod(number, _BLOCK)
        if self._block[0] != index:
            rng = stream(self._seed, "proposals", index)
            self._block = index, rng.random((_BLOCK, len(self._space))).tolist()
        return point_at(self._space, self._block[1][place])


class TPESampler:
    """Optuna's TPE as the real search asks it; each proposal costs a look at all before it."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed

    def propose(self, number: int, trials: Mapping[int, SimulatedTrial]) -> Params:
        """Returns a proposal that depends on the seed, the number and what was measured."""
        told = [
            to_frozen_trial(
                self._space,
                trial.params,
                _TOLD[trial.state],
                trial.best,
                {trial.kimg: trial.best},
            )
            for trial in trials.values()
        ]
        sampler = make_sampler("tpe", proposal_seed(self._seed, number))
        return propose(rebuild_study(told, sampler), self._space)
