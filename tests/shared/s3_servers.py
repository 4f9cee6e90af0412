"""Fixtures of an S3 server, and of embedded platforms that keep files on it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.session import get_session
from other_processes import come_up, stop
from served_home import Home

from ivcap_flows.local import EmbeddedPlatform, ensure


@dataclass(frozen=True)
class S3Server:
    """An S3 server that runs: its `url`, and the keys that it takes, which are any."""

    url: str

    def client(self) -> Any:
        """A client of botocore, to look at what is there."""
        key = "somebody"
        return get_session().create_client(
            "s3", "us-east-1", endpoint_url=self.url, aws_access_key_id=key, aws_secret_access_key=key
        )


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto's server of Amazon's APIs, a program of its own."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as said:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    [url, *_] = come_up(server, lambda: re.findall(r"http://127\.0\.0\.1:\d+", log.read_text()), log)
    yield S3Server(url)
    stop(server)


@pytest.fixture(scope="session")
def s3_platform(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPlatform]:
    """Embedded platforms that keep the files of datasets on the S3 server."""
    home = Home(tmp_path_factory.mktemp("s3-embedded") / "state").start("--s3-endpoint", s3_server.url)
    yield ensure(home.root)
    home.close()
