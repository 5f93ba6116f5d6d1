"""The search platform: Ray Tune runs, Optuna proposes, the journal remembers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.driver import run_study
    from search.study import StudySpec, load_spec

__all__ = ["StudySpec", "load_spec", "run_study"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: workers need none of them."""
    if name == "run_study":
        from search.driver import run_study

        return run_study
    if name in ("StudySpec", "load_spec"):
        from search import study

        return getattr(study, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
