"""A file with the offline token of a Provena login until Prefect has stored it; only its owner may read it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from platformdirs import user_data_path
from pydantic import SecretStr

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.identity import digest
from ivcap_flows.secrets import hide

__all__ = ["KeptToken"]


class KeptToken:
    """The token for one block, from one client of one realm, kept in the user's data folder."""

    def __init__(self, block: str, realm: str, client_id: str) -> None:
        place = digest(f"{realm} {client_id}".encode())[:8]
        self.path: Path = user_data_path("ivcap-flows", appauthor=False) / "logins" / f"{block}-{place}.json"

    def read(self) -> SecretStr | None:
        """Return the token, or None if none is kept. Raise ConfigurationError if the file cannot be used."""
        try:
            token = json.loads(self.path.read_text(encoding="utf-8"))["offline_token"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Leave out the error's text: it may show the token.
            raise ConfigurationError(
                f"The login in {self.path} cannot be read ({type(error).__name__}). Delete the file and log in again."
            ) from None
        hide(str(token))
        return SecretStr(str(token))

    def write(self, token: SecretStr) -> None:
        """Store a token, durably and readable by its owner only. Raise OSError if that fails."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".login.")  # of mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"offline_token": token.get_secret_value()}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def delete(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
