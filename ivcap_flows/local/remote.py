"""Control a running embedded platform from another process: its services, faults, request log and clock."""

from __future__ import annotations

import json
import re
from contextlib import closing
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ivcap_flows.errors import EmbeddedPlatformError, InputError
from ivcap_flows.local.ondemand import EmbeddedPlatform
from ivcap_flows.local.proof import connected
from ivcap_flows.local.services.definition_files import register_files

__all__ = ["PlatformControl"]


class PlatformControl:
    """Calls the control API of an embedded platform. Raises EmbeddedPlatformError if it does not answer."""

    def __init__(self, embedded: EmbeddedPlatform) -> None:
        self._embedded = embedded

    def faults(self) -> list[dict[str, Any]]:
        """Return the active rules, each with the number of its hits."""
        found: list[dict[str, Any]] = self._call("GET", "faults")["faults"]
        return found

    def add_fault(self, **rule: Any) -> None:
        """Add a rule; `ivcap_flows.local.faults` lists its fields. Raises InputError for an invalid rule."""
        self._call("POST", "faults", rule)

    def clear_faults(self) -> None:
        """Remove all rules."""
        self._call("DELETE", "faults")

    def requests(self, method: str | None = None, path: str | None = None) -> list[dict[str, Any]]:
        """Return the requests so far, oldest first, with method, path, status and received bytes.

        `method` and `path`, a regular expression, select requests as they do in `add_fault`.
        """
        log: list[dict[str, Any]] = self._call("GET", "log")["requests"]
        return [
            entry
            for entry in log
            if (method is None or entry["method"] == method) and (path is None or re.search(path, entry["path"]))
        ]

    def forget_requests(self) -> None:
        """Empty the log of requests."""
        self._call("DELETE", "log")

    def register(
        self,
        *definitions: Path,
        run: str | None = None,
        cwd: Path | None = None,
        concurrency: int | None = None,
        tool: Path | None = None,
    ) -> list[str]:
        """Register the services that these files describe, as `ivcap-flows local register` does. Returns their URNs.

        Raises InputError, which names the file, and PlatformError.
        """
        return register_files(lambda: self._embedded, definitions, run=run, cwd=cwd, concurrency=concurrency, tool=tool)

    def clock(self) -> dict[str, Any]:
        """Return `now` (RFC 3339), `rate` (0 while it is stopped) and `offset` in seconds from the machine's time."""
        found: dict[str, Any] = self._call("GET", "clock")
        return found

    def set_clock(self, now: datetime) -> None:
        """Set the clock to a time with an offset to UTC. Raises InputError for one before 1970 or after 2099.

        Lists show the records of that time, so a clock in the past hides later ones. Tokens expire by this clock.
        """
        if now.tzinfo is None:
            raise InputError("The new time of the clock needs an offset to UTC.")
        self._call("POST", "clock", {"now": now.isoformat()})

    def advance_clock(self, seconds: float) -> None:
        """Move the clock forward by this many seconds."""
        self._call("POST", "clock", {"advance": seconds})

    def freeze_clock(self, *, on: bool = True) -> None:
        """Stop the clock, or let it continue from its current time."""
        self._call("POST", "clock", {"freeze": on})

    def reset_clock(self) -> None:
        """Return to the machine's time."""
        self._call("DELETE", "clock")

    def be_like(self, name: str, *, speed: float = 1.0) -> None:
        """Imitate the latencies, limits and delays of `production`, `speed` times as fast.

        Raises InputError for another name. Clients that sent a request before keep using the earlier visibility delay.
        """
        self._call("POST", "like", {"like": name, "speed": speed})

    def be_itself(self) -> None:
        """Be as fast as the machine allows again."""
        self._call("DELETE", "like")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        embedded = self._embedded
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Embedded-Control": embedded.control, "Content-Type": "application/json"}
        try:
            connection = connected({"url": embedded.url, "control": embedded.control})
            if connection is None:
                raise ConnectionError("no server of this folder is at its address")
            with closing(connection):
                connection.request(method, f"/_embedded/{path}", data, headers)
                reply = connection.getresponse()
                answer = json.loads(reply.read() or b"null")
        except (OSError, ValueError, HTTPException) as error:
            raise EmbeddedPlatformError(
                f"The embedded platform of {embedded.directory} does not answer: {error}.",
                directory=str(embedded.directory),
            ) from error
        if reply.status >= 400:
            raise InputError(str(answer["message"]))
        return answer
