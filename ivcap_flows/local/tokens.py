"""Bearer tokens: JSON Web Tokens signed with a secret that is kept in the directory.

The claims are those that IVCAP's clients read: `sub`, `acc` (the bare account id), `exp`, `email`, `name`, `nickname`.
A token made for a job has its URN in `job`, so that artifacts which a service creates are known to belong to the job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import jwt

from ivcap_flows.local import clock
from ivcap_flows.local.ids import account_urn, derived

__all__ = ["LIFETIME", "Principal", "Tokens", "claims_of", "decoded", "principals"]

LIFETIME: Final = 365 * 24 * 3600
_ALGORITHM: Final = "HS256"


@dataclass(frozen=True)
class Principal:
    """The caller. `account` and `subject` are URNs; `job` is set for a running service."""

    account: str
    subject: str
    name: str
    email: str
    job: str | None = None


def principals(instance: str) -> tuple[Principal, Principal, Principal]:
    """Return the two accounts of every directory, and the provider that owns the built-in services."""

    def one(name: str, email: str) -> Principal:
        account, user = derived(instance, f"account:{email}"), derived(instance, f"user:{email}")
        return Principal(account_urn(account), f"urn:ivcap:user:{user}", name, email)

    return (
        one("First User", "first@embedded.example"),
        one("Second User", "second@embedded.example"),
        one("Provider", "provider@embedded.example"),
    )


def decoded(token: str, key: str, algorithm: str, required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the claims of a token that is signed with this key and valid by the platforms' clock.

    Raises jwt.InvalidTokenError.
    """
    claims = _signed(token, key, algorithm, tuple(required))
    end = claims.get("exp")
    if end is not None and end <= clock.seconds():
        raise jwt.ExpiredSignatureError("Signature has expired")
    return dict(claims)


@lru_cache(maxsize=1024)
def _signed(token: str, key: str, algorithm: str, required: tuple[str, ...]) -> dict[str, Any]:
    """Return the claims of a token that is signed with the key, expired or not. Cached, since the same tokens recur."""
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False}
    options["require"] = list(required)
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=options)
    return claims


def claims_of(who: Principal, lifetime: float) -> dict[str, object]:
    """Return the claims of a token: whom it is for, and its period of validity."""
    now = clock.seconds()
    return {
        "sub": who.subject,
        "acc": who.account.rsplit(":", 1)[-1],
        "exp": int(now + lifetime),
        "iat": int(now) - 1 + min(0, int(lifetime)),
        "name": who.name,
        "nickname": who.name.partition(" ")[0].lower(),
        "email": who.email,
    }


@dataclass(frozen=True)
class Tokens:
    secret: str = field(repr=False)

    def issue(self, who: Principal, *, lifetime: float = LIFETIME, job: str | None = None) -> str:
        """Return a signed token; a negative lifetime (seconds) gives an expired one."""
        claims = claims_of(who, lifetime) | ({"job": job} if job else {})
        return jwt.encode(claims, self.secret, algorithm=_ALGORITHM)

    def verify(self, token: str) -> Principal:
        """Return the principal of a token. Raises jwt.InvalidTokenError."""
        claims = decoded(token, self.secret, _ALGORITHM, ["exp", "sub", "acc"])
        return Principal(
            account_urn(str(claims["acc"])),
            str(claims["sub"]),
            str(claims.get("name", "")),
            str(claims.get("email", "")),
            claims.get("job"),
        )
