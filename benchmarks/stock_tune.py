"""Sleeping trials in Ray Tune as its documentation has it, with its own MLflow callback."""

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.spans import note_span


def run_stock(
    folder: Path, trials: int, seconds: float, measurements: int, concurrent: int
) -> None:
    """Runs them by `tune.Tuner` alone, in the Ray that is connected."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new console is not silent at verbose=0
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    def train(config: dict[str, Any]) -> None:
        began = time.time()
        for index in range(measurements):
            time.sleep(seconds / measurements)
            if index + 1 == measurements:
                note_span(folder, began, time.time())
            score = config["learning_rate"] - 100.0 / (2.0 + index)
            tune.report({"validation_log_likelihood": score, "standard_error": 1.0})

    space = {
        "learning_rate": tune.loguniform(0.001, 1.0),
        "d_dropout": tune.uniform(0.0, 0.6),
    }
    callback = MLflowLoggerCallback(
        tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="sleeping"
    )
    tune.Tuner(
        tune.with_resources(train, {"CPU": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder), callbacks=[callback], verbose=0
        ),
    ).fit()
