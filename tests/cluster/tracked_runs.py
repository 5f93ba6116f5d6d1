"""Prints as JSON what MLflow has of a study's trials; runs on the head, in place of a user's eyes.

python tracked_runs.py EXPERIMENT
"""

import json
import sys
from typing import Any

from search.mlflow_client import connect
from search.mlflow_runs import KEY_TAG, PARENT_TAG
from search.tracking_place import find_place

METRIC = "validation_log_likelihood"


def main(experiment: str) -> None:
    client = connect(find_place(None))
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000)
    keys = [run.data.tags[KEY_TAG] for run in runs]
    assert len(set(keys)) == len(keys), f"doubled: {keys}"
    trials = [run for run in runs if PARENT_TAG in run.data.tags]
    assert len(runs) == len(trials) + 1, "there is one study"
    print(json.dumps({run.data.tags["number"]: _picture(client, run) for run in trials}))


def _picture(client: Any, run: Any) -> dict[str, Any]:
    kimg = {p.step: p.value for p in client.get_metric_history(run.info.run_id, "kimg")}
    values = client.get_metric_history(run.info.run_id, METRIC)
    assert len(values) == len(kimg), "each measurement once"
    return {
        "status": run.info.status,
        "state": run.data.tags["state"],
        "node": run.data.tags["node"],
        "objective": {str(kimg[point.step]): point.value for point in values},
    }


if __name__ == "__main__":
    main(sys.argv[1])
