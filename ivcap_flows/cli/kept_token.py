"""A login to Provena that Prefect has not taken yet: its offline token in a file of the user alone."""

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
    """The token for one block, of one client of one realm, in the user's data folder until the block has it."""

    def __init__(self, block: str, realm: str, client_id: str) -> None:
        place = digest(f"{realm} {client_id}".encode())[:8]
        self.path: Path = user_data_path("ivcap-flows", appauthor=False) / "logins" / f"{block}-{place}.json"

    def read(self) -> SecretStr | None:
        """The token; None where none is kept. Raises ConfigurationError for a file that cannot be used."""
        try:
            token = json.loads(self.path.read_text(encoding="utf-8"))["offline_token"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Without the error's words: they may show the token.
            raise ConfigurationError(
                f"The login in {self.path} cannot be read ({type(error).__name__}). Delete the file and log in again."
            ) from None
        hide(str(token))
        return SecretStr(str(token))

    def write(self, token: SecretStr) -> None:
        """Keep a token, readable by its owner alone; it survives a crash. Raises OSError."""
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
        """Forget the token."""
        self.path.unlink(missing_ok=True)
