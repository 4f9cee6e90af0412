"""The embedded realm's accounts and clients, and their roles."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ACCOUNTS",
    "ADMIN",
    "CLIENTS",
    "COMPONENTS",
    "OTHER",
    "READER",
    "SERVICE_CLIENT",
    "UNLINKED",
    "USER",
    "Account",
    "Client",
    "User",
]

_REGISTRY, _JOBS, _HANDLES, _SYSTEM = "entity-registry", "job-service", "handle", "sys-admin"

COMPONENTS = {"entity-registry": _REGISTRY, "handle-service": _HANDLES, "job-service": _JOBS, "sys-admin": _SYSTEM}
"""Component of an access report -> stem of its three roles."""

_READS = frozenset({"entity-registry-read"})
_WRITES = _READS | {"entity-registry-write"}
_ALL = frozenset(f"{stem}-{level}" for stem in COMPONENTS.values() for level in ("read", "write", "admin"))


@dataclass(frozen=True)
class User:
    """The owner of a token, as an API sees it. No repr shows the token."""

    username: str
    email: str | None
    roles: frozenset[str]


@dataclass(frozen=True)
class Account:
    """An account that can get tokens."""

    username: str
    first_name: str
    last_name: str
    roles: frozenset[str] = _WRITES

    @property
    def email(self) -> str:
        return f"{self.username}@example.org"

    @property
    def user(self) -> User:
        return User(self.username, self.email, self.roles)


@dataclass(frozen=True)
class Client:
    """An OpenID client. A confidential one has a secret and a service account."""

    client_id: str
    default_scopes: tuple[str, ...]
    optional_scopes: tuple[str, ...] = ("offline_access",)
    confidential: bool = False


USER = Account("embedded-user", "Ada", "Embedded")
OTHER = Account("embedded-user-2", "Ben", "Embedded")
UNLINKED = Account("embedded-unlinked", "Uma", "Embedded")
READER = Account("embedded-reader", "Ron", "Embedded", _READS)
ADMIN = Account("embedded-admin", "Amy", "Embedded", _ALL)
_SERVICE = Account("service-account-embedded-service", "Service", "Embedded")

ACCOUNTS = {account.username: account for account in (USER, OTHER, UNLINKED, READER, ADMIN, _SERVICE)}

SERVICE_CLIENT = "embedded-service"
CLIENTS = {
    client.client_id: client
    for client in (
        Client("automated-access", ("profile", "email"), ("roles", "offline_access")),
        Client("client-tools", ("profile", "roles", "email")),
        Client("admin-tools", ("profile", "roles", "email")),
        Client(SERVICE_CLIENT, ("profile", "roles", "email"), confidential=True),
    )
}
