"""Adds items to a collection: `python adding.py <collection> <item> ...`.

When it knows what is missing, and before it writes the first item, it says so and waits for a line.
"""

import asyncio
import sys
from typing import Any

from ivcap_flows.ivcap.collections import Collections
from ivcap_flows.tasks import add_to_collection

write = Collections._add


async def write_when_told(*given: Any) -> None:
    Collections._add = write  # type: ignore[method-assign]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await write(*given)


Collections._add = write_when_told  # type: ignore[method-assign]
collection, *items = sys.argv[1:]
add_to_collection.fn(collection, items)
