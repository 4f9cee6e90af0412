"""What the scripts share that use IVCAP by its official Python client: each call is counted by its method.

Runs where `ivcap-client` is installed and this project is not.
"""

from __future__ import annotations

import inspect
import time
from dataclasses import fields
from datetime import datetime
from enum import Enum
from typing import Any

from counting import calls, counted
from ivcap_client import IVCAP
from ivcap_client.agent import Agent
from ivcap_client.artifact import Artifact, DataUrlArtifact
from ivcap_client.aspect import Aspect
from ivcap_client.collection import Collection
from ivcap_client.job import Job
from ivcap_client.order import Order
from ivcap_client.secret import Secret
from ivcap_client.service import Service
from ivcap_client.types import Unset
from ivcap_client.utils import process_error

Json = dict[str, Any]


def count_calls() -> None:
    """Count the public methods and properties of the client's classes."""
    for cls in (IVCAP, Service, Agent, Job, Order, Artifact, DataUrlArtifact, Aspect, Collection, Secret):
        for name, member in list(vars(cls).items()):
            if name.startswith("_"):
                continue
            if inspect.isfunction(member):
                setattr(cls, name, counted(f"{cls.__name__}.{name}", member))
            elif isinstance(member, property) and member.fget is not None:
                setattr(cls, name, property(counted(f"{cls.__name__}.{name}", member.fget)))


def raw(module: Any, *args: Any, **kwargs: Any) -> Any:
    """The parsed reply of a generated call."""
    calls[module.__name__.rpartition(".")[2]] += 1
    reply = module.sync_detailed(*args, **kwargs)
    if reply.status_code >= 300:
        process_error(module.__name__, reply)
    return reply.parsed


def seen(thing: Any) -> Json:
    """The public fields of an object of the client."""
    return {field.name: getattr(thing, field.name) for field in fields(thing)}


def plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Unset):
        return None
    return value.to_dict() if hasattr(value, "to_dict") else vars(value)


def finished(thing: Job | Order) -> str:
    """Polls until the end; the last status."""
    end = time.monotonic() + 120
    while True:
        status = thing.status()
        status = status.value if isinstance(status, Enum) else str(status)
        if status in ("succeeded", "failed", "error"):
            return status
        assert time.monotonic() < end, f"{thing!r} does not end"
        time.sleep(0.05)
