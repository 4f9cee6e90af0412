"""The embedded IVCAP as one object: its store, its nouns, its tokens."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from ivcap_flows.identity import flows_urn
from ivcap_flows.local import clock, ids
from ivcap_flows.local.database import Store
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap.artifacts.state import Artifacts
from ivcap_flows.local.ivcap.aspects.state import Aspects
from ivcap_flows.local.ivcap.cursors import Cursors
from ivcap_flows.local.ivcap.jobs.changes import Changes
from ivcap_flows.local.ivcap.jobs.state import Jobs
from ivcap_flows.local.ivcap.login.state import Logins
from ivcap_flows.local.ivcap.orders.state import Orders
from ivcap_flows.local.ivcap.packages.state import Packages
from ivcap_flows.local.ivcap.queues.state import Queues
from ivcap_flows.local.ivcap.search.state import Searches
from ivcap_flows.local.ivcap.secrets.seal import SealKey
from ivcap_flows.local.ivcap.secrets.state import Secrets
from ivcap_flows.local.ivcap.services.state import Services
from ivcap_flows.local.ivcap.thread import StateThread
from ivcap_flows.local.likeness import AS_BUILT
from ivcap_flows.local.tokens import Tokens, principals

__all__ = ["Platform"]


class Platform:
    """The embedded IVCAP of a directory. Opens its state, which must not be open in another server.

    With a `seed`, new ids are derived from it. Seed and clock are stored in the directory. Raises
    EmbeddedPlatformError, NewerSchemaError.
    """

    def __init__(self, directory: Directory, seed: int | None = None) -> None:
        self.directory = directory
        self.likeness = AS_BUILT
        self.store = store = Store(directory.database)
        self.thread = StateThread()
        self.seed = self._follow_seed(seed)
        clock.CLOCK.restore(store.get("clock") or clock.Clock().kept())
        empty = store.get("instance") is None
        self.instance = store.kept("instance", lambda: flows_urn("embedded", uuid.uuid4()))
        secret = store.kept("secret", lambda: secrets.token_hex(32))
        self.tokens = Tokens(secret)
        self.cursors = Cursors(secret.encode())
        self.first, self.second, self.provider = principals(store.kept("accounts", lambda: self._accounts(new=empty)))
        self.changes = Changes()
        self.aspects = Aspects(store)
        self.artifacts = Artifacts(store, directory, self.aspects)
        self.packages = Packages(store)
        self.services = Services(store, self.aspects, self.packages)
        self.jobs = Jobs(store, directory, self.aspects, self.artifacts, self.changes)
        self.orders = Orders(store, self.aspects, self.services, self.jobs)
        self.secrets = Secrets(store, SealKey(directory.root, self.instance))
        self.queues = Queues(store)
        self.searches = Searches(store, self.thread)
        accounts = {"first": self.first, "second": self.second}
        self.logins = Logins(store, self.tokens, directory.login_key, accounts)
        self.services.install_built_ins(self.provider)

    def _follow_seed(self, given: int | None) -> int | None:
        store = self.store
        if given is not None:
            store.keep("seed", str(given))
        kept = store.get("seed")
        if kept is None:
            ids.use(uuid.uuid4)
            return None
        seed = int(kept)
        ids.use(lambda: ids.seeded(seed, "ivcap", store.count("ids")))
        return seed

    def _accounts(self, *, new: bool) -> str:
        """Return the text from which the accounts' ids are derived: from the seed if it was set before the first start.

        The instance id is never derived from a seed, since it must differ between directories, even with the same seed.
        """
        if not new or self.seed is None:
            return self.instance
        return flows_urn("embedded", ids.seeded(self.seed, "accounts", 0))

    async def decide_login(self, **decision: Any) -> bool:
        """As `Logins.decide`."""
        return await self.thread.run(self.logins.decide, **decision)

    async def keep_clock(self) -> None:
        """Store the current state of the clock, so that a restart keeps it."""
        await self.thread.run(self.store.keep, "clock", clock.CLOCK.kept())

    def close(self) -> None:
        self.searches.close()
        self.thread.close()
        self.store.close()
