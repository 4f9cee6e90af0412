"""Download what an order or a job made into a folder. Plain functions: each product is a task run of its own."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from ivcap_flows import loop
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, Job, LocalFile, Order
from ivcap_flows.tasks.artifacts import adownload_artifact, download_artifact
from ivcap_flows.tasks.call import IvcapCredentialsLike
from ivcap_flows.tasks.pair import refuse_in_asynchronous_flow

__all__ = ["adownload_products", "download_products"]


class _Files(dict[str, LocalFile]):
    """Files by the names of products. For a name that is none, the error says which there are."""

    def __missing__(self, name: object) -> LocalFile:
        raise KeyError(f"no product {name!r}; there are: {', '.join(self) or 'none'}")


def download_products(
    work: Order | Job, folder: str | os.PathLike[str], *, credentials: IvcapCredentialsLike = None
) -> dict[str, LocalFile]:
    """Download the products of an ended order or job into a folder, and return the files by the products' names.

    Eight are downloaded at a time. Each file has the name of its product; folders are made where they are missing. See
    `download_artifact` for what holds of each. Raises InputError if the work has not ended, if two products have one
    name, and for a name that is none of a file.
    """
    refuse_in_asynchronous_flow("download_products")
    named = _named(work)
    return _Files(
        loop.all_in_threads(
            lambda name: (name, download_artifact(named[name], Path(folder, name), credentials=credentials)), named
        )
    )


async def adownload_products(
    work: Order | Job, folder: str | os.PathLike[str], *, credentials: IvcapCredentialsLike = None
) -> dict[str, LocalFile]:
    """Like `download_products`, for asynchronous flows."""
    named = _named(work)

    async def fetched(name: str) -> tuple[str, LocalFile]:
        return name, await adownload_artifact(named[name], Path(folder, name), credentials=credentials)

    return _Files(await loop.all_of(fetched, named))


def _named(work: Order | Job) -> dict[str, Artifact]:
    """Return the products by their names, each of which may be the name of a file."""
    if not work.done:
        raise InputError(f"{work.urn} is {work.status}; wait for it, and pass what the wait returns.", urn=work.urn)
    names = [product.name or product.urn.rpartition(":")[2] for product in work.products]
    twice = [name for name, count in Counter(names).items() if count > 1]
    bad = [name for name in names if name in (".", "..") or "/" in name or os.sep in name or "\0" in name]
    if twice or bad:
        what = "several products have the name" if twice else "no file can have the name of the product"
        raise InputError(
            f"Of {work.urn}, {what} {(twice or bad)[0]!r}. Download its products one by one with download_artifact.",
            urn=work.urn,
        )
    return dict(zip(names, work.products, strict=True))
