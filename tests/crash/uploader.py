"""Uploads, each in a process of its own that kills itself at a named step.

The processes are forked from one that has everything imported, so that many may be killed in little time. It takes one
JSON object a line: `source`, `path`, `step` (None: none), `environment`; it tells how each process ended. The package's
own code knows nothing of it.
"""

import inspect
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from ivcap_flows.http import tus
from ivcap_flows.identity import CONTENT_SCHEMA
from ivcap_flows.ivcap.artifacts import Artifacts
from ivcap_flows.ivcap.aspects import Aspects
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.journal.intents import Intents
from ivcap_flows.tasks import upload_artifact

MIB = 1024 * 1024


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> Callable[[], None]:
    """Die when this is called."""

    def arrange() -> None:
        real = getattr(owner, name)

        @wraps(real)
        def killing(*args: Any, **options: Any) -> Any:
            if when(*args, **options):
                die()
            return real(*args, **options)

        setattr(owner, name, killing)

    return arrange


def after(owner: Any, name: str) -> Callable[[], None]:
    """Die when this has returned."""

    def arrange() -> None:
        real = getattr(owner, name)
        assert inspect.iscoroutinefunction(real)

        @wraps(real)
        async def killing(*args: Any, **options: Any) -> Any:
            await real(*args, **options)
            die()

        setattr(owner, name, killing)

    return arrange


def after_the_first_chunk() -> None:
    assert tus.send.__kwdefaults__ is not None
    tus.send.__kwdefaults__["chunk"] = MIB
    after(tus, "patch")()


def in_the_middle_of_a_chunk() -> None:
    count = itertools.count(1)
    before(os, "pread", lambda *_: next(count) == 4)()


STEPS: dict[str, Callable[[], None]] = {
    "before the artifact is asked for": before(Artifacts, "create"),
    "before its name is in the journal": after(Artifacts, "create"),
    "before its digest is stated": before(Aspects, "add", lambda _, entity, schema, *__: schema == CONTENT_SCHEMA),
    "in the middle of a chunk": in_the_middle_of_a_chunk,
    "after the first chunk": after_the_first_chunk,
    "after the last byte": after(Artifacts, "send"),
    "before the outcome is in the journal": before(Intents, "settle"),
    "before the outcome is on the platform": before(
        IdempotencyRecords, "write", lambda _, key, content, **__: bool(content["urn"])
    ),
}


def blocks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(100_000):
            yield block


def upload(source: str, path: str) -> str:
    if source == "file":
        return upload_artifact.fn(path).urn
    if source == "stream":
        with open(path, "rb") as stream:
            return upload_artifact.fn(stream).urn
    return upload_artifact.fn(blocks(path), name=os.path.basename(path)).urn


def work(source: str, path: str, step: str | None, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if step is not None:
        STEPS[step]()
    urn = upload(source, path)
    with open(f"{path}.urn", "w", encoding="ascii") as told:
        told.write(urn)


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(**json.loads(line))
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    main()
