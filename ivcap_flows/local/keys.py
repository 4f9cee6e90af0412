"""Keys in files: each is created at its first use, is readable by its owner only, and never changes."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ivcap_flows.errors import EmbeddedPlatformError

__all__ = ["RsaKey", "kept_file"]

_DER: Final = serialization.Encoding.DER


def kept_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return the bytes of a file that is created once, readable by its owner only. Raises OSError."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            # link, not rename: the first of two processes wins, and the other reads its file
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
    return path.read_bytes()


class RsaKey:
    """A key pair that signs tokens. `role` says whose key it is.

    Raises EmbeddedPlatformError for a file that cannot be read as a key.
    """

    def __init__(self, path: Path, role: str) -> None:
        try:
            found = serialization.load_pem_private_key(kept_file(path, _new_pem), password=None)
            if not isinstance(found, rsa.RSAPrivateKey):
                raise ValueError("it is not an RSA key")
        except (ValueError, OSError) as error:
            raise EmbeddedPlatformError(
                f"{path} cannot be read as the key of {role}: {error}. Delete it, and a new one is made; "
                "earlier tokens are then refused.",
                directory=str(path.parent),
            ) from error
        self.private = found
        self.public = found.public_key()
        self.public_der = self.public.public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.public_pem = self.public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()
        self.private_der = found.private_bytes(_DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.id = hashlib.sha256(self.public_der).hexdigest()[:16]

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a JSON Web Token with these claims (RS256)."""
        return jwt.encode(dict(claims), self.private, algorithm="RS256", headers={"kid": self.id})

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key Set."""
        numbers = self.public.public_numbers()
        n, e = (_b64(number.to_bytes((number.bit_length() + 7) // 8, "big")) for number in (numbers.n, numbers.e))
        return {"keys": [{"kid": self.id, "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": e}]}


def _new_pem() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
