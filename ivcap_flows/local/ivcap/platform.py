"""The embedded IVCAP as one object: its store, its nouns, its tokens."""

from __future__ import annotations

import secrets
import uuid

from ivcap_flows.identity import flows_urn
from ivcap_flows.local.database import Store
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap.artifacts.state import Artifacts
from ivcap_flows.local.ivcap.aspects.state import Aspects
from ivcap_flows.local.ivcap.cursors import Cursors
from ivcap_flows.local.ivcap.jobs.changes import Changes
from ivcap_flows.local.ivcap.jobs.state import Jobs
from ivcap_flows.local.ivcap.orders.state import Orders
from ivcap_flows.local.ivcap.packages.state import Packages
from ivcap_flows.local.ivcap.projects.state import Projects
from ivcap_flows.local.ivcap.queues.state import Queues
from ivcap_flows.local.ivcap.secrets.seal import SealKey
from ivcap_flows.local.ivcap.secrets.state import Secrets
from ivcap_flows.local.ivcap.services.state import Services
from ivcap_flows.local.ivcap.thread import StateThread
from ivcap_flows.local.tokens import Tokens, principals

__all__ = ["Platform"]


class Platform:
    """Opens the directory's state, which must not be open in another server. Raises TwinError, NewerSchemaError."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.store = store = Store(directory.database)
        self.thread = StateThread()
        self.instance = store.kept("instance", lambda: flows_urn("twin", uuid.uuid4()))
        secret = store.kept("secret", lambda: secrets.token_hex(32))
        self.tokens = Tokens(secret)
        self.cursors = Cursors(secret.encode())
        self.first, self.second, self.provider = principals(self.instance)
        self.changes = Changes()
        self.aspects = Aspects(store)
        self.artifacts = Artifacts(store, directory, self.aspects)
        self.packages = Packages(store)
        self.services = Services(store, self.aspects, self.packages)
        self.jobs = Jobs(store, directory, self.aspects, self.artifacts, self.changes)
        self.orders = Orders(store, self.aspects, self.services, self.jobs)
        self.secrets = Secrets(store, SealKey(directory.root, self.instance))
        self.queues = Queues(store)
        self.projects = Projects(store)
        self.services.install_built_ins(self.provider)

    def close(self) -> None:
        self.thread.close()
        self.store.close()
