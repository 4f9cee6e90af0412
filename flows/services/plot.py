"""The picture of the index: the curve, the thresholds and the events, shaded by category."""

from __future__ import annotations

import io
from typing import Final

from flows.services.icen import THRESHOLDS, BasePeriod, Category, Event, Kind
from flows.services.months import Month, Series

__all__ = ["plot"]

COLOURS: Final[dict[Kind, dict[Category, str]]] = {
    "warm": {"weak": "#fee8c8", "moderate": "#fdbb84", "strong": "#ef6548", "extraordinary": "#b30000"},
    "cold": {"weak": "#d0e1f2", "moderate": "#94c4df", "strong": "#4a98c9"},
}


def plot(index: Series, events: list[Event], *, base: BasePeriod, source: str) -> bytes:
    """A PNG of the index over time, with its series and base period named. Equal arguments give equal bytes."""
    # matplotlib is needed here alone, and takes longer to import than the index to compute.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shaded = set()
    for event in events:
        name = f"{event.category} {event.kind} event"
        axes.axvspan(
            _position(event.start, -0.5),
            _position(event.end, 0.5),
            color=COLOURS[event.kind][event.category],
            alpha=0.75,
            linewidth=0,
            label=None if name in shaded else name,
        )
        shaded.add(name)
    for levels in THRESHOLDS.values():
        for category, level in levels:
            axes.axhline(level, color="#888888", linewidth=0.6, linestyle=":")
            axes.annotate(
                f"{category} {level:+.1f}",
                (1.0, level),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=7,
                va="center",
                color="#555555",
            )
    months, values = _curve(index)
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.plot(months, values, color="#1a1a1a", linewidth=1.1, label="ICEN")
    if months:
        axes.set_xlim(months[0] - 0.5, months[-1] + 0.5)
    axes.set_xlabel("Year")
    axes.set_ylabel("Anomaly of the sea surface temperature,\n3-month running mean (°C)")
    axes.set_title(f"Índice Costero El Niño (ICEN), {_span(index)}", fontsize=14, loc="left")
    note = f"Anomalies against {base}; categories: ENFEN (2012)\nSeries: {source}"
    axes.set_title(note, fontsize=8, color="#555555", loc="right")
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda at: _rank(labels[at]))
    figure.legend(
        [handles[at] for at in order],
        [labels[at] for at in order],
        loc="outside lower center",
        ncols=len(order),
        fontsize=8,
        frameon=False,
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _curve(index: Series) -> tuple[list[float], list[float]]:
    """The curve's points; a gap in the index breaks the line."""
    months: list[float] = []
    values: list[float] = []
    last: Month | None = None
    for at in sorted(index):
        if last is not None and at != last.plus(1):
            months.append(_position(at, -0.5))
            values.append(float("nan"))
        months.append(_position(at, 0))
        values.append(index[at])
        last = at
    return months, values


def _position(at: Month, shift: float) -> float:
    """The middle of a month as a fraction of its year, shifted by months."""
    return at.year + (at.month - 0.5 + shift) / 12


def _span(index: Series) -> str:
    return f"{min(index)} to {max(index)}" if index else "no month"


def _rank(label: str) -> int:
    ranks = [f"{category} {kind} event" for kind in COLOURS for category in COLOURS[kind]]
    return ranks.index(label) + 1 if label in ranks else 0
