"""A file with the tokens of a login until Prefect has stored them; only its owner may read it."""

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
    """The tokens for one block from one client of one identity provider, by field, in the user's data folder."""

    def __init__(self, block: str, provider: str, client_id: str) -> None:
        place = digest(f"{provider} {client_id}".encode())[:8]
        self.path: Path = user_data_path("ivcap-flows", appauthor=False) / "logins" / f"{block}-{place}.json"

    def read(self) -> dict[str, SecretStr] | None:
        """Return the tokens, or None if none are kept. Raise ConfigurationError if the file cannot be used."""
        try:
            kept = {str(field): str(token) for field, token in json.loads(self.path.read_text("utf-8")).items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError) as error:
            # Leave out the error's text: it may show the token.
            raise ConfigurationError(
                f"The login in {self.path} cannot be read ({type(error).__name__}). Delete the file and log in again."
            ) from None
        for token in kept.values():
            hide(token)
        return {field: SecretStr(token) for field, token in kept.items()}

    def write(self, tokens: dict[str, SecretStr]) -> None:
        """Store tokens, durably and readable by their owner only. Raise OSError if that fails."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".login.")  # of mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({field: token.get_secret_value() for field, token in tokens.items()}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def delete(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
