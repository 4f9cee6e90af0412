"""What trials came to, counted by step and by fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from harness.trial import Trial

__all__ = ["lines_of"]

_COLUMNS = ("runs", "duplicates", "lost", "unrecorded", "undurable", "unreached")


def lines_of(trials: Sequence[Trial]) -> list[str]:
    """Two tables, and a line for each trial that is not fine."""
    by_step = _counted(trials, lambda trial: {f"{k.victim}: {k.step}" for k in trial.scenario.kills} or {"none"})
    by_fault = _counted(trials, lambda trial: {trial.scenario.fault})
    by_variation = _counted(trials, lambda trial: set(trial.scenario.vary) or {"none"})
    by_ground = _counted(trials, lambda trial: {trial.scenario.backend, _how(trial)})
    wrong = [f"{trial.scenario}\n    {trial.verdict}" for trial in trials if not trial.verdict.fine]
    return [
        *_table("killed", by_step),
        *_table("fault", by_fault),
        *_table("varied", by_variation),
        *_table("on", by_ground),
        *_table("", {"all": _sums(trials)}),
        *wrong,
    ]


def _how(trial: Trial) -> str:
    return "deployed" if trial.scenario.deployed else "script"


def _counted(trials: Iterable[Trial], names: Callable[[Trial], set[str]]) -> dict[str, list[int]]:
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        for name in names(trial):
            groups.setdefault(name, []).append(trial)
    return {name: _sums(groups[name]) for name in sorted(groups)}


def _sums(trials: Sequence[Trial]) -> list[int]:
    found = [trial.verdict for trial in trials]
    wrong = [sum(len(getattr(verdict, kind)) for verdict in found) for kind in _COLUMNS[1:5]]
    return [len(trials), *wrong, sum(len(trial.unreached) for trial in trials)]


def _table(title: str, rows: dict[str, list[int]]) -> list[str]:
    width = max(len(name) for name in [title, *rows])
    head = f"{title:<{width}}  " + "  ".join(_COLUMNS)
    return [
        "",
        head,
        *(
            f"{name:<{width}}  "
            + "  ".join(f"{count:>{len(column)}}" for count, column in zip(counts, _COLUMNS, strict=True))
            for name, counts in rows.items()
        ),
    ]
