"""The picture of a report: each season's index by year, a line for each base period."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final

from flows.services.icen import THRESHOLDS
from flows.services.seasons import SEASONS

__all__ = ["report_plot"]

COLOURS: Final = ("#1b6ca8", "#b30000", "#2e7d32", "#7b4ea3", "#c77700", "#444444")


def report_plot(means: Mapping[str, Mapping[str, Mapping[int, float]]], *, source: str) -> bytes:
    """A PNG of the mean index (°C) by base period, season and year. Equal arguments give equal bytes."""
    # matplotlib is needed here alone, and takes longer to import than the report to write.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharex=True, sharey=True).flat
    for axes, season in zip(panels, SEASONS, strict=True):
        for levels in THRESHOLDS.values():
            for _, level in levels:
                axes.axhline(level, color="#888888", linewidth=0.6, linestyle=":")
        axes.axhline(0, color="#444444", linewidth=0.8)
        for number, (base, by_season) in enumerate(means.items()):
            years = sorted(by_season[season])
            axes.plot(
                years,
                [by_season[season][year] for year in years],
                color=COLOURS[number % len(COLOURS)],
                linewidth=1.1,
                label=f"against {base}",
            )
        axes.set_title(season, loc="left")
    figure.supylabel("Mean index of the season (°C)")
    figure.suptitle(f"Índice Costero El Niño (ICEN) by season\nSeasons: {source}", fontsize=12)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
