"""What MLflow shows of a trial and of its runs beside scores: their tags."""

import json
from collections.abc import Mapping

from search.cause import CauseKind
from search.lost_attempt import by_cause
from search.run_state import CLAIM, CONDITIONS, RunState
from search.trial import TrialState

CONFIG_TAG = "config"
_REASON_LENGTH = 4000  # characters; MLflow refuses or cuts tags beyond 5,000 to 8,000


def trial_tags(trial: TrialState, flags: tuple[str, ...]) -> dict[str, str]:
    """What is said of a trial; one of one run in the search is shown as that run."""
    several = len(trial.search_runs) > 1
    facts = _shared_facts(trial) | ({"seed": trial.seed} if several else _run_facts(trial.first))
    return _texts(
        facts
        | {
            "state": trial.state,
            "reason": trial.reason and trial.reason[:_REASON_LENGTH],
            "retries": trial.retries,
            **_causes(trial.losses),
            "replicates": len(trial.search_runs),
            "flags": ", ".join(flags) or None,
        }
    )


def run_tags(trial: TrialState, run: RunState) -> dict[str, str]:
    """What is said of a run that is shown below its trial's."""
    return _texts(_shared_facts(trial) | _run_facts(run))


def config_tag(config: Mapping[str, object]) -> dict[str, str]:
    """All settings of a run as JSON, from which it can be trained again.

    A tag and not an artifact: with a server each artifact is a call of its own.
    """
    return {CONFIG_TAG: json.dumps(config, default=str)}


def _shared_facts(trial: TrialState) -> dict[str, object]:
    return {
        "number": trial.number,
        "stage": trial.stage,
        "stage_index": trial.stage_index,
        "replaces": trial.replaces,
        "donor": trial.donor and trial.donor.number,
        "donor_kimg": trial.donor and trial.donor.kimg,
    }


def _run_facts(run: RunState) -> dict[str, object]:
    facts = {name: getattr(run, name) for name in (*CLAIM, "state", "retries", *CONDITIONS)}
    return facts | _causes(run.losses) | {"reason": run.reason and run.reason[:_REASON_LENGTH]}


def _causes(losses: Mapping[CauseKind, int]) -> dict[str, object]:
    return {name: count for name, count in by_cause(losses).items() if count}


def _texts(facts: Mapping[str, object]) -> dict[str, str]:
    return {key: text(value) for key, value in facts.items() if value is not None}


def text(value: object) -> str:
    """A value as a tag or a parameter holds it: itself if it is text, else JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
