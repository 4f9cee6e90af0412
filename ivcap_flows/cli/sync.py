"""`ivcap-flows sync`: deliver what is on record to the sinks that are switched on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ivcap_flows import loop
from ivcap_flows.capture.reconcile import reconcile
from ivcap_flows.cli.output import Json, complain, console, emit, table
from ivcap_flows.cli.records import open_journal
from ivcap_flows.errors import ConfigurationError, IvcapFlowsError
from ivcap_flows.journal import Journal
from ivcap_flows.settings import Settings
from ivcap_flows.sinks import IvcapSink, ProvJsonSink, Sink, drain

__all__ = ["sync"]


def sync(*, again: Annotated[bool, Parameter(negative=())] = False, as_json: Json = False) -> int:
    """Tell how runs ended that lost their process, then deliver every run to each sink; status 1 if something is left.

    The sinks are those of IVCAP_FLOWS_SINKS. Delivering twice has the effect of once; two at once share the work.

    Args:
        again: Try now what waits for its time, and what was refused.
    """
    with open_journal() as journal:
        names = [_known(name) for name in Settings().sinks]
        ended = reconcile(journal)
        sinks, unusable = [], {}
        for name in names:
            # One that cannot be reached or logged in to does not hold the others.
            try:
                sinks.append(_sink(name, journal))
            except IvcapFlowsError as error:
                unusable[name] = error
        drained = drain(journal, sinks, again=again)
        left = [row for sink in sinks for row in journal.deliveries.where(sink.name, limit=None)]
        left = [row for row in left if row.state != "delivered"]
    for problem in unusable.values():
        complain(problem)
    if as_json:
        told = [{"attempt": a.id, "outcome": o} for a, o in ended]
        failed = {name: str(problem) for name, problem in unusable.items()}
        emit({"ended": told, "sinks": drained, "left": left, "unusable": failed})
    else:
        for attempt, outcome in ended:
            console.print(f"attempt {attempt.number} of run {attempt.run_id[:8]} ({attempt.flow_name}): {outcome}")
        if not names:
            console.print(
                "No sink is switched on; name them in IVCAP_FLOWS_SINKS (ivcap, provena:<mapping.yaml>, "
                "prov-json:<folder>)."
            )
        table(
            "Sinks",
            ("sink", "delivered", "pending", "refused"),
            [(d.sink, "busy" if d.busy else str(d.delivered), str(d.pending), str(d.dead)) for d in drained],
        )
        for row in left:
            console.print(f"{row.sink}: run {(row.run_id or '')[:8]} {row.state}: {row.reason}", style="red")
    return int(bool(unusable) or any(d.pending or d.dead for d in drained))


def _known(name: str) -> str:
    kind, _, place = name.partition(":")
    if name in ("ivcap", "provena") or (kind in ("prov-json", "provena") and place):
        return name
    raise ConfigurationError(
        f"There is no sink {name!r}. IVCAP_FLOWS_SINKS takes ivcap, provena, provena:<mapping.yaml> and "
        "prov-json:<folder>, comma separated."
    )


def _sink(name: str, journal: Journal) -> Sink:
    from ivcap_flows.blocks.resolve import ivcap_client, provena_client

    if name == "ivcap":
        client = loop.run(ivcap_client(None, deployed=False))
        return IvcapSink(client, f"ivcap:{loop.run(client.platform())}")
    kind, _, place = name.partition(":")
    path = Path(place).expanduser().absolute()
    if kind == "provena":
        from ivcap_flows.sinks import ModelRunMapping, ProvenaSink

        mapping = ModelRunMapping.read(path) if place else None
        registry = loop.run(provena_client(None, deployed=False))
        named = [kind, loop.run(registry.platform()), *([str(path)] if place else [])]
        return ProvenaSink(registry, journal, ":".join(named), mapping)
    return ProvJsonSink(path)
