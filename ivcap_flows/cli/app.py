"""The application: its commands, and the exit status of each error."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import cyclopts
from cyclopts import Parameter

import ivcap_flows
from ivcap_flows.cli import (
    diff,
    doctor,
    export,
    init,
    journal,
    local,
    login,
    models,
    orders,
    plan,
    rerun,
    run,
    runs,
    services,
    show,
    sync,
    trace,
    verify,
    watch,
)
from ivcap_flows.cli.output import complain, discard, set_up_streams
from ivcap_flows.errors import InputError, IvcapFlowsError

__all__ = ["app", "main"]

app = cyclopts.App(
    name="ivcap-flows",
    help="Inspect and manage Prefect flows on IVCAP and Provena: their runs, orders and provenance.",
    version=ivcap_flows.__version__,
    # No `--no-clear` beside `--clear`: every flag is off unless it is given.
    default_parameter=Parameter(negative=()),
)
app.command(init.init)
app.command(run.app)
app.command(plan.plan)
app.command(services.services)
app.command(local.app)
app.command(runs.app)
app.command(show.show)
app.command(trace.trace)
app.command(diff.diff)
app.command(verify.verify)
app.command(rerun.rerun)
app.command(export.export)
app.command(sync.sync)
app.command(watch.watch)
app.command(orders.app)
app.command(journal.app)
app.command(models.app)
app.command(doctor.doctor)
app.command(login.login)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, and exit with its status."""
    set_up_streams()
    try:
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        usage = " ".join(["ivcap-flows", *(error.command_chain or ()), "--help"])
        names = _names(error, sys.argv[1:] if arguments is None else arguments)
        complain(error, f"{names}`{usage}` says how it is used.")
        sys.exit(2)
    except IvcapFlowsError as error:
        complain(error)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:
        # The reader closed the pipe.
        discard(sys.stdout)
        sys.exit(0)
    except OSError as error:
        try:
            # Whether it is standard output that fails, only a further attempt tells.
            print(flush=True)
        except OSError:
            discard(sys.stdout)
            complain(OSError(f"Standard output cannot be written: {error.strerror}."))
            sys.exit(1)
        raise
    sys.exit(result if isinstance(result, int) else 0)


def _names(error: cyclopts.CycloptsError, words: Sequence[str]) -> str:
    """Say how a name that was taken for an option is written, if a word may be one."""
    names = [word for word in words if re.match("-[^-].", word) or (word[:1] == "-" and os.path.lexists(word))]
    if not names or not isinstance(error, (cyclopts.UnknownOptionError, cyclopts.MissingArgumentError)):
        return ""
    return f"If {names[0]} is the name of a file, write `./{names[0]}`; another name goes after `--`. "
