"""The embedded platforms: IVCAP and Provena as one real server on a loopback socket, started when it is needed."""

from __future__ import annotations

from pathlib import Path

from ivcap_flows.local.ondemand import EmbeddedPlatform, ensure

__all__ = ["EmbeddedPlatform", "ensure", "serve"]


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
    """Serve a directory in the foreground until a signal, or until idle for so many seconds.

    With a seed, which stays with the directory, the ids of what is made follow from it: an empty directory and the same
    requests give the same ids. The environment is printed as `KEY=value` lines once the server is about to answer, and
    written to `env_file`. The files of Provena's datasets are on the S3 server at `s3`
    (`http[s]://[key:secret@]host[:port]`), if one is named. `like` production they are as slow, narrow and late as the
    real ones, `speed` times as quick. Raises EmbeddedPlatformError, also when another server has the directory,
    NewerSchemaError, and ValueError for what they cannot be like.
    """
    # Starlette and uvicorn are only for those who serve.
    from ivcap_flows.local.likeness import AS_BUILT, likeness
    from ivcap_flows.local.server import run

    run(
        *(host, port, directory),
        env_file=env_file,
        idle=idle,
        announce=announce,
        seed=seed,
        s3=s3,
        likeness=AS_BUILT if like is None else likeness(like, speed),
    )
