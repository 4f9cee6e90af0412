"""Register the services that files describe: definitions written by hand, and what the SDKs of services print."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ivcap_flows.errors import InputError, PlatformError
from ivcap_flows.local.ondemand import EmbeddedPlatform
from ivcap_flows.local.services.descriptions import is_description, register_description
from ivcap_flows.local.services.mapping import RunnerMapping
from ivcap_flows.local.services.register import read_definition, register

__all__ = ["register_files"]


def register_files(
    platform: Callable[[], EmbeddedPlatform],
    definitions: Sequence[Path],
    *,
    run: str | None = None,
    cwd: Path | None = None,
    concurrency: int | None = None,
    tool: Path | None = None,
) -> list[str]:
    """Register the service of each file, or replace its registration. Returns their URNs.

    For one file that a service printed with `--print-service-description`, `run` is the command line that runs it here,
    in the folder `cwd` (default: the current one) and for at most `concurrency` jobs at once, and `tool` is the file
    that it printed with `--print-tool-description`. All files are read before `platform`, which may start one, is
    called. Raises InputError, which names the file, and PlatformError.
    """
    read = {definition: read_definition(definition) for definition in definitions}
    described = [definition for definition, content in read.items() if is_description(content)]
    _check_options(definitions, described, run=run, cwd=cwd, concurrency=concurrency, tool=tool)
    mapping = RunnerMapping(_words(run), str((cwd or Path()).absolute()), concurrency) if run is not None else None
    requests = read_definition(tool) if tool is not None else None
    if requests is not None and not isinstance(requests.get("fn_schema"), dict):
        raise InputError(f"{tool} has no fn_schema, so it is not what --print-tool-description prints.")
    embedded = platform()
    token = embedded.environment["IVCAP_JWT"]
    urns = []
    for definition, content in read.items():
        try:
            if definition in described:
                urn = register_description(
                    embedded.url, token, embedded.directory, content, tool=requests, mapping=mapping
                )
            else:
                urn = register(embedded.url, token, content, definition)
        except InputError as error:
            raise InputError(f"{definition}: {error}") from error
        except PlatformError as error:
            if error.status not in (400, 403, 422):
                raise
            fault = "is malformed" if error.status in (400, 422) else "cannot be registered"
            raise InputError(f"The service definition {definition} {fault}: {error.detail}") from error
        urns.append(urn)
    return urns


def _check_options(definitions: Sequence[Path], described: Sequence[Path], **options: Any) -> None:
    """Raise InputError if options do not go with these definitions, or with each other."""
    if not definitions:
        raise InputError("Give at least one file that describes a service.")
    given = any(options.values())
    if len(definitions) > 1 and given:
        raise InputError("--run, --cwd, --concurrency and --tool apply to one service; register each service alone.")
    if not described and given:
        raise InputError(
            f"{definitions[0]} already says how the service runs. --run, --cwd, --concurrency and --tool are only for"
            " what a service prints with --print-service-description."
        )
    if options["run"] is None and (options["cwd"] or options["concurrency"]):
        raise InputError("--cwd and --concurrency need --run.")


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise InputError(f"--run is not a command line ({error}).") from error
    if not words:
        raise InputError("--run is empty; name the command that starts the service.")
    return words
