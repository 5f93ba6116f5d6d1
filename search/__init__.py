"""The search platform: Ray Tune runs, Optuna proposes, the journal remembers."""
