"""The embedded platforms: IVCAP and Provena as one real server on a loopback socket, started on demand."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import InputError
from ivcap_flows.local.loopback import is_loopback
from ivcap_flows.local.ondemand import EmbeddedPlatform, ensure

if TYPE_CHECKING:
    from ivcap_flows.local.remote import PlatformControl
    from ivcap_flows.local.services.definition_files import register_files

__all__ = ["EmbeddedPlatform", "PlatformControl", "ensure", "register_files", "serve"]

_PLACES: Final = {
    "PlatformControl": "ivcap_flows.local.remote",
    "register_files": "ivcap_flows.local.services.definition_files",
}
"""Imported when they are asked for: every flow imports this package, and few control a platform."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    directory: Path = Path("ivcap-artifacts"),
    env_file: Path | None = None,
    *,
    idle: float | None = None,
    announce: bool = True,
    seed: int | None = None,
    s3: str | None = None,
    like: str | None = None,
    speed: float = 1.0,
) -> None:
    """Serve a directory in the foreground until a signal, or until idle for `idle` seconds.

    With a `seed`, which is stored in the directory, all new ids are derived from it: the same requests to an empty
    directory give the same ids. Once the server accepts requests, the environment is printed as `KEY=value` lines
    (unless `announce` is False) and written to `env_file`. `s3` names an S3 server for the files of Provena's datasets
    (`http[s]://[key:secret@]host[:port]`). With `like="production"` the platforms have the latencies, limits and delays
    of the real ones, `speed` times as fast. Raises InputError for a host that is no loopback address,
    EmbeddedPlatformError, also if another server uses the directory, NewerSchemaError, and ValueError for an invalid
    `like` or `speed`.
    """
    if not is_loopback(host):
        raise InputError(f"The embedded platforms serve this machine only; {host} is not a loopback address.")
    # Import Starlette and uvicorn only in the process that serves.
    from ivcap_flows.local.likeness import AS_BUILT, likeness
    from ivcap_flows.local.server import Options, run

    wanted = AS_BUILT if like is None else likeness(like, speed)
    run(host, port, directory, Options(env_file, idle, announce, seed, s3, wanted))
