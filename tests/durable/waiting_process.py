"""A process that waits for work which stands in a file, and writes down each request that it makes.

Arguments: the journal's URL, a folder with `work.json` (status by URN), the URNs to wait for with commas between.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from waiting_work import Seen, Work

from ivcap_flows.durable import poll_interval, poller
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.poller import Poller
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.journal import Journal

poll_interval.SHORTEST = 0.2
poller._EXCHANGE = 0.2
poller.LOST = 1.0


class Filed(Seen):
    def __init__(self, folder: Path) -> None:
        super().__init__(Work())
        self._folder = folder

    def _ask(self, what: str) -> None:
        with (self._folder / "requests").open("a") as log:
            log.write(f"{os.getpid()} {what}\n")
        self._work.status = json.loads((self._folder / "work.json").read_text())

    async def read(self, urn: str, service: str) -> tuple[str, str]:
        self._ask(f"read {urn}")
        return await self._work.read(urn, service)

    async def pages(self, name: str):
        self._ask("page")
        async for page in self._work.pages(name):
            yield page


async def main(url: str, folder: Path, urns: list[str]) -> None:
    with Journal.open(url) as journal:
        sharing = PollSharing(journal, folder.name)
        poller = Poller(Filed(folder), visibility_delay=5.0, rate_limiter=RateLimiter(60_000), sharing=sharing)
        ended = await poller.wait(urns)
        if poller._ticker is not None:
            await poller._ticker
    print(json.dumps(ended))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(",")))
