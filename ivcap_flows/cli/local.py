"""`ivcap-flows local`: run and prepare the embedded platforms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number

from ivcap_flows.cli.output import AtLeastOne, console, print_json
from ivcap_flows.errors import InputError
from ivcap_flows.settings import Settings

__all__ = ["app"]

app = cyclopts.App(name="local", help="Run the embedded platforms: IVCAP and Provena on this machine.")

Folder = Annotated[
    Path | None,
    Parameter(name="--dir", help="State folder of the platforms. Default: IVCAP_LOCAL_DIR, else `ivcap-artifacts`."),
]


def _folder(given: Path | None) -> Path:
    return given or Settings().ivcap_local_dir


@app.command
def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8088,
    directory: Folder = None,
    env_file: Path | None = None,
    seed: int | None = None,
    s3_endpoint: str | None = None,
    like: Literal["production"] | None = None,
    speed: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
) -> None:
    """Serve the embedded platforms until interrupted, and print the environment variables that clients need.

    Args:
        host: Loopback address to listen on.
        port: Port to listen on; 0 takes a free one.
        env_file: File to write these variables to as well, one KEY=value per line.
        seed: Number from which the ids of new things follow; the state folder keeps it. Default: random ids.
        s3_endpoint: Address of an S3 server for the files of Provena's datasets: http[s]://[key:secret@]host[:port].
        like: Imitate the delays, limits and late visibility of the real platforms, to rehearse a deployment.
        speed: With --like: divide its times by this number. Default: 1.
    """
    from ivcap_flows import local

    if speed is not None and like is None:
        raise InputError("--speed needs --like production.")
    times = 1.0 if speed is None else speed
    local.serve(host, port, _folder(directory), env_file, seed=seed, s3=s3_endpoint, like=like, speed=times)


@app.command
def register(
    *definitions: Path,
    run: str | None = None,
    cwd: Path | None = None,
    concurrency: AtLeastOne | None = None,
    tool: Path | None = None,
    directory: Folder = None,
) -> None:
    """Register services with the embedded IVCAP, or replace their registration, and print the URN of each.

    Args:
        definitions: YAML or JSON files with name, description, parameters, and `entry` (module:function) or `command`;
            or the output of a service written for IVCAP that was called with `--print-service-description`.
        run: For a service that describes itself: the command that runs it on this machine, instead of its container.
        cwd: Folder in which to start `run`. Default: the current one.
        concurrency: Number of jobs that `run` gets at once at most. Default: no limit of its own.
        tool: Output of the service with `--print-tool-description`, which describes its requests. Default: as in the
            service description.
    """
    from ivcap_flows.local import ensure, register_files

    folder = _folder(directory)
    urns = register_files(lambda: ensure(folder), definitions, run=run, cwd=cwd, concurrency=concurrency, tool=tool)
    console.print("\n".join(urns))


@app.command
def faults(rule: str | None = None, /, *, clear: bool = False, directory: Folder = None) -> None:
    """Make the embedded platforms fail on purpose, by a rule, and list the rules in force.

    Args:
        rule: JSON object such as '{"method": "POST", "path": "/1/orders", "count": 1, "status": 503}'.
        clear: Remove all rules first.
    """
    from ivcap_flows.local import PlatformControl, ensure

    try:
        wanted = json.loads(rule) if rule else None
    except ValueError as error:
        raise InputError(f"The fault rule is not JSON: {error}") from error
    if not isinstance(wanted, dict | None):
        raise InputError(f"The fault rule must be a JSON object, not {rule}.")
    control = PlatformControl(ensure(_folder(directory)))
    if clear:
        control.clear_faults()
    if wanted is not None:
        control.add_fault(**wanted)
    print_json(control.faults())
