"""Draws the learning curves of a recorded study: log-likelihood and label accuracy against kimg.

python -m benchmarks.curves runs/mnist-quick --out curves.png
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from search.record import MeasurementRecord, TrialRecord, read_measurements, read_trials

METRICS = {
    "validation_log_likelihood": "validation log-likelihood (nats)",
    "label_accuracy": "label accuracy of the samples",
}


def main() -> None:
    """Draws one panel a metric, one line a trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    trials = read_trials(options.study)
    measurements = read_measurements(options.study)
    figure, panels = plt.subplots(1, len(METRICS), figsize=(11, 4.2), layout="constrained")
    for panel, (metric, label) in zip(panels, METRICS.items(), strict=True):
        draw(panel, trials, measurements, metric)
        panel.set_xlabel("kimg (thousands of real images shown)")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    panels[-1].legend(fontsize="x-small", title="trial")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)


def draw(
    panel: Any, trials: list[TrialRecord], measurements: list[MeasurementRecord], metric: str
) -> None:
    """Draws one metric of every trial that was measured."""
    for trial in trials:
        course = [m for m in measurements if m.number == trial.number and metric in m.metrics]
        if not course:
            continue
        name = f"{trial.number} {trial.stage} {trial.params.get('optimizer', '')}"
        style = "-" if trial.state == "COMPLETED" else "--"
        values = [m.metrics[metric] for m in course]
        panel.plot([m.kimg for m in course], values, style, marker=".", label=name)


if __name__ == "__main__":
    main()
