"""Packages in the store: an image is a package from when a service names it until it is removed."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local.database import Store
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.tokens import Principal

__all__ = ["Packages"]


class Packages:
    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, who: Principal, image: Any) -> None:
        """Record the image of a service's controller; ignore anything but a text."""
        if isinstance(image, str) and image:
            tagged = ":" in image.rpartition("/")[2]
            tag = image if tagged else f"{image}:latest"
            self._store.execute("INSERT OR IGNORE INTO packages (account, tag) VALUES (?, ?)", (who.account, tag))

    def remove(self, who: Principal, tag: str) -> None:
        """Remove an image. Raises Problem 404."""
        names = self.names(who, tag)
        marks = ", ".join("?" * len(names))
        gone = self._store.execute(
            f"DELETE FROM packages WHERE account = ? AND tag IN ({marks})",  # noqa: S608 - values are parameters
            (who.account, *names),
        )
        if not gone.rowcount:
            raise errors.not_found("package", tag[:200])

    def names(self, who: Principal, tag: str) -> list[str]:
        """Return the forms in which a service may have named a tag: as it is, and below the account."""
        return [tag, f"{who.account.rsplit(':', 1)[-1]}/{tag}"]
