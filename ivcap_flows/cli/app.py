"""The application: its commands, and how an error ends it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import cyclopts

import ivcap_flows
from ivcap_flows.cli import doctor, export, local, orders, plan, runs, show, sync, trace
from ivcap_flows.errors import InputError, IvcapFlowsError

__all__ = ["app", "main"]

app = cyclopts.App(
    name="ivcap-flows",
    help="Prefect flows on IVCAP and Provena: what ran, what was ordered, what came from what.",
    version=ivcap_flows.__version__,
)
app.command(local.app)
app.command(runs.runs)
app.command(show.show)
app.command(trace.trace)
app.command(export.export)
app.command(sync.sync)
app.command(orders.app)
app.command(plan.plan)
app.command(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit."""
    try:
        # What is wrong with the arguments is printed by cyclopts, which exits with 1; that is our 2.
        result = app(arguments, exit_on_error=False, result_action="return_value")
    except cyclopts.CycloptsError:
        sys.exit(2)
    except IvcapFlowsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)
