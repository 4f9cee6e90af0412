"""The embedded Provena alone on a free port: `serve.py DIRECTORY` prints its base URL and serves until it is killed."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from ivcap_flows.local.provena import create_app


def main(directory: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    embedded = create_app(directory, url)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await embedded.start()
        print(url, flush=True)
        yield
        await embedded.stop()

    app = Starlette(routes=[Mount("/provena", embedded.app)], lifespan=lifespan)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
