"""The application: its commands, and the exit status of each error."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Final

import cyclopts
from cyclopts import Parameter

import ivcap_flows
from ivcap_flows.cli.output import discard, print_error, set_up_streams
from ivcap_flows.errors import InputError, IvcapFlowsError

__all__ = ["app", "main"]

app = cyclopts.App(
    name="ivcap-flows",
    help="Inspect and manage Prefect flows on IVCAP and Provena: their runs, orders and provenance.",
    version=ivcap_flows.__version__,
    # No `--no-clear` beside `--clear`: every flag is off unless it is given.
    default_parameter=Parameter(negative=()),
)
# Each is imported when it is given, since together they take longer than most of them run.
_COMMANDS: Final = {
    "init": "init",
    "run": "app",
    "plan": "plan",
    "services": "services",
    "local": "app",
    "runs": "app",
    "show": "show",
    "trace": "trace",
    "get": "get",
    "diff": "diff",
    "verify": "verify",
    "rerun": "rerun",
    "export": "export",
    "sync": "sync",
    "watch": "watch",
    "orders": "app",
    "models": "app",
    "journal": "app",
    "doctor": "doctor",
    "login": "login",
}
"""The module of each command, and what of it is the command."""

for module, command in _COMMANDS.items():
    app.command(f"ivcap_flows.cli.{module}:{command}", name=module)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, and exit with its status."""
    set_up_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] != ["--version"] and not _COMMANDS.keys() & words[:1]:
        # The list of all commands says what each is for.
        app.resolved_commands()
    try:
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        usage = " ".join(["ivcap-flows", *(error.command_chain or ()), "--help"])
        names = _names(error, words)
        print_error(error, f"{names}`{usage}` says how it is used.")
        sys.exit(2)
    except IvcapFlowsError as error:
        print_error(error)
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
            print_error(OSError(f"Standard output cannot be written: {error.strerror}."))
            sys.exit(1)
        raise
    sys.exit(result if isinstance(result, int) else 0)


def _names(error: cyclopts.CycloptsError, words: Sequence[str]) -> str:
    """Say how a name that was taken for an option is written, if a word may be one."""
    names = [word for word in words if re.match("-[^-].", word) or (word[:1] == "-" and os.path.lexists(word))]
    if not names or not isinstance(error, (cyclopts.UnknownOptionError, cyclopts.MissingArgumentError)):
        return ""
    return f"If {names[0]} is the name of a file, write `./{names[0]}`; another name goes after `--`. "
