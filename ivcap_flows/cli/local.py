"""`ivcap-flows local`: the embedded platforms."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number

from ivcap_flows.cli.output import console, emit
from ivcap_flows.errors import InputError, PlatformError
from ivcap_flows.settings import Settings

__all__ = ["app"]

app = cyclopts.App(name="local", help="The embedded platforms: IVCAP and Provena on this machine.")

Folder = Annotated[
    Path | None, Parameter(name="--dir", help="Their state folder; default IVCAP_LOCAL_DIR, else `ivcap-artifacts`.")
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
    """Serve the embedded platforms until interrupted; prints the environment that clients need.

    Args:
        host: Loopback address to listen on.
        port: Port to listen on; 0 takes a free one.
        env_file: File to write the environment to as well, one KEY=value a line.
        seed: Make the ids of new things follow from this number, from now on; else they are random.
        s3_endpoint: Address of an S3 server for the files of Provena's datasets: http[s]://[key:secret@]host[:port].
        like: Be as slow, narrow and late as the real platforms, to rehearse a deployment.
        speed: With --like: let its times pass so many times as quickly; default 1.
    """
    from ivcap_flows import local
    from ivcap_flows.local.loopback import is_loopback

    if not is_loopback(host):
        raise InputError(f"The embedded platforms serve this machine alone; {host} is no loopback address.")
    if speed is not None and like is None:
        raise InputError("--speed goes with --like production.")
    times = 1.0 if speed is None else speed
    local.serve(host, port, _folder(directory), env_file, seed=seed, s3=s3_endpoint, like=like, speed=times)


@app.command
def register(
    *definitions: Path,
    run: str | None = None,
    cwd: Path | None = None,
    concurrency: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    tool: Path | None = None,
    directory: Folder = None,
) -> None:
    """Register services with the embedded IVCAP, or replace their registration. Prints the URN of each.

    Args:
        definitions: YAML or JSON files: name, description, parameters, and `entry` (module:function) or `command`; or
            what a service written for IVCAP prints with `--print-service-description`.
        run: For a printed description: the command that runs the service on this machine, in place of its container.
        cwd: Folder in which `run` is started; default the current one.
        concurrency: Most jobs that `run` is given at once; default no limit of its own.
        tool: What the service prints with `--print-tool-description`: its requests. Default what the description says.
    """
    from ivcap_flows import local
    from ivcap_flows.local.descriptions import is_description, register_description
    from ivcap_flows.local.mapping import RunnerMapping
    from ivcap_flows.local.register import read_definition
    from ivcap_flows.local.register import register as register_with

    if not definitions:
        raise InputError("Name the file that describes the service, or several of them.")
    read = {definition: read_definition(definition) for definition in definitions}
    described = [definition for definition, content in read.items() if is_description(content)]
    if len(definitions) > 1 and (run or cwd or concurrency or tool):
        raise InputError("--run, --cwd, --concurrency and --tool go with one service; register each by itself.")
    if not described and (run or cwd or concurrency or tool):
        raise InputError(
            f"{definitions[0]} says itself how the service runs. --run, --cwd, --concurrency and --tool go with what a"
            " service prints with --print-service-description."
        )
    if run is None and (cwd or concurrency):
        raise InputError("--cwd and --concurrency go with --run.")
    mapping = None
    if run is not None:
        mapping = RunnerMapping(_words(run), str((cwd or Path()).absolute()), concurrency)
    requests = read_definition(tool) if tool is not None else None
    embedded = local.ensure(_folder(directory))
    token = embedded.environment["IVCAP_JWT"]
    for definition, content in read.items():
        try:
            if definition in described:
                urn = register_description(
                    embedded.url, token, embedded.directory, content, tool=requests, mapping=mapping
                )
            else:
                urn = register_with(embedded.url, token, content, definition)
        except PlatformError as error:
            if error.status in (400, 422):
                raise InputError(f"The service definition {definition} is malformed: {error.detail}") from error
            raise
        console.print(urn)


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise InputError(f"--run is no command line ({error}).") from error
    if not words:
        raise InputError("--run is empty; name the command that starts the service.")
    return words


@app.command
def faults(rule: str | None = None, /, *, clear: bool = False, directory: Folder = None) -> None:
    """Make the running embedded platforms fail on purpose; lists the rules in force.

    Args:
        rule: JSON object such as '{"method": "POST", "path": "/1/orders", "count": 1, "status": 503}'.
        clear: Remove all rules first.
    """
    from ivcap_flows import local
    from ivcap_flows.local.remote import PlatformControl

    try:
        wanted = json.loads(rule) if rule else None
    except ValueError as error:
        raise InputError(f"The fault rule is no JSON: {error}") from error
    if not isinstance(wanted, dict | None):
        raise InputError(f"The fault rule is a JSON object, not {rule}.")
    control = PlatformControl(local.ensure(_folder(directory)))
    if clear:
        control.clear_faults()
    if wanted is not None:
        control.add_fault(**wanted)
    emit(control.faults())
