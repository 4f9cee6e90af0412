"""What the scripts share that use all of Provena by its official Python client: each call is counted by its method.

Runs where `provenaclient` is installed and this project is not. The platform is named by the PROVENA_* variables.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import tempfile
import time
import urllib.request
import webbrowser
from typing import Any
from urllib.parse import parse_qs, urlsplit

from counting import counted
from provena_official import connect
from provenaclient import ProvenaClient
from provenaclient.auth import DeviceFlow
from provenaclient.modules.datastore import InteractiveDataset
from provenaclient.modules.module_helpers import ModuleService
from provenaclient.modules.search import Search
from provenaclient.utils.exceptions import BadRequestException
from ProvenaInterfaces.AsyncJobModels import JobStatusTable

Json = dict[str, Any]

ADMIN = "embedded-admin"

# The client makes a TLS context for each request, and most of its time goes into reading certificates that nobody asks
# for on this machine: an empty folder has none.
os.environ["SSL_CERT_DIR"] = tempfile.mkdtemp()


def count_methods(part: Any, path: str = "") -> None:
    """Count the public methods of a module of the client and of the modules in it, by the path that leads there."""
    for name, _ in inspect.getmembers(type(part), inspect.isfunction):
        if not name.startswith("_"):
            setattr(part, name, counted(f"{path}{name}", getattr(part, name)))
    for name, member in list(vars(part).items()):
        if isinstance(member, ModuleService | Search) and not name.startswith("_"):
            count_methods(member, f"{path}{name}.")


def counting_client(token: str = "PROVENA_OFFLINE_TOKEN") -> ProvenaClient:
    """The client of the user of an offline token, which is named by its variable."""
    client = connect(os.environ | {"PROVENA_OFFLINE_TOKEN": os.environ[token]})
    count_methods(client)
    return client


def count_interactive() -> None:
    """Count the methods of the datasets that `interactive_dataset` makes."""
    for name, method in list(vars(InteractiveDataset).items()):
        if not name.startswith("_"):
            setattr(InteractiveDataset, name, counted(f"InteractiveDataset.{name}", method))


def administrator(control: str) -> ProvenaClient:
    """The client of the administrator, who logs in by a device code; the browser that opens lets the device in.

    `control` is the token of the embedded platforms' control API.
    """

    def let_in(url: str) -> bool:
        [code] = parse_qs(urlsplit(url).query)["user_code"]
        parts = urlsplit(os.environ["PROVENA_KEYCLOAK"])
        request = urllib.request.Request(
            f"{parts.scheme}://{parts.netloc}/_embedded/login",
            json.dumps({"user_code": code, "account": ADMIN}).encode(),
            {"X-Embedded-Control": control, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10):
            return True

    webbrowser.open = let_in  # type: ignore[assignment]
    place = connect(dict(os.environ))
    login = DeviceFlow(place._config, "admin-tools")
    client = ProvenaClient(login, place._config)
    count_methods(client)
    count_methods(login, "DeviceFlow.")
    return client


async def ended(client: ProvenaClient, session: str) -> JobStatusTable:
    """The row of a job that has ended well, looked at more often than the client's own waiting does."""
    end = time.monotonic() + 120
    while True:
        try:
            job = (await client.job_api.fetch_job(session)).job
        except BadRequestException:
            job = None
        if job is not None and job.status in ("SUCCEEDED", "FAILED"):
            assert job.status == "SUCCEEDED", job.info
            return job
        assert time.monotonic() < end, f"the job {session} does not end"
        await asyncio.sleep(0.1)
