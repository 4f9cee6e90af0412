"""What the credentials of both platforms have in common, and how the environment chooses them.

The environment means the real platforms that it names, or the embedded ones if it names none. For IVCAP the rules of
the official client apply (ivcap-client, `ivcap.py`): IVCAP_URL takes precedence over IVCAP_BASE_URL; the first needs a
token, the second none; a token or a URL alone is a ValueError. A context of the `ivcap` command is used only if
IVCAP_CONTEXT names it, and excludes the other variables. A block is used only if IVCAP_FLOWS_IVCAP_BLOCK or
IVCAP_FLOWS_PROVENA_BLOCK names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NoReturn

from prefect.blocks.abstract import CredentialsBlock
from pydantic import ConfigDict, SecretStr

from ivcap_flows import local, loop
from ivcap_flows.blocks.load import load_block
from ivcap_flows.errors import ConfigurationError, IncompleteSettingsError, PlatformOffError
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

    from ivcap_flows.http.oauth import Tokens
    from ivcap_flows.http.shared_login import Login

__all__ = ["Platform", "PlatformCredentials", "block_named", "refuse"]

Platform = Literal["IVCAP", "Provena"]

_NEXT_STEP: Final[dict[Platform, str]] = {
    "IVCAP": "Set IVCAP_FLOWS_IVCAP_BLOCK, IVCAP_CONTEXT, or IVCAP_URL and IVCAP_JWT, or pass credentials.",
    "Provena": "Set IVCAP_FLOWS_PROVENA_BLOCK, or PROVENA_DOMAIN, PROVENA_REALM and PROVENA_OFFLINE_TOKEN, or pass "
    "credentials.",
}


class PlatformCredentials(CredentialsBlock, ABC):
    """Credentials of a platform, whose login can be renewed in the saved block (`BlockLogin`)."""

    # Errors leave out the input, which may be a token that is not a SecretStr yet.
    model_config = ConfigDict(hide_input_in_errors=True)
    _platform: ClassVar[Platform]
    _login_option: ClassVar[str]
    """The option of `ivcap-flows login` that stores a login in such a block."""
    _refresh_once: ClassVar[bool]
    """Whether a refresh token may be valid for one use. Then none is used unless the next one can be stored."""

    @classmethod
    def from_environment(cls, settings: Settings | None = None, *, deployed: bool = False) -> Self:
        """Return the credentials that the environment gives, or those of the embedded platform if it names no platform.

        Set `deployed` if the run belongs to a deployment; such a run uses the embedded platform only with
        IVCAP_FLOWS_EMBEDDED=1. Raises ConfigurationError (also a ValueError) if settings are incomplete or contradict
        each other, and PlatformOffError if only the other platform is configured.
        """
        found = _settings_for(cls._platform, settings or Settings.current(), deployed=deployed)
        name = block_named(cls._platform, found)
        return cls._from_settings(found) if name is None else loop.run(load_block(cls, name))

    @classmethod
    @abstractmethod
    def _from_settings(cls, settings: Settings) -> Self:
        """Return the credentials that settings for this platform give, which name no block."""

    def _when_renewed(self) -> dict[str, object]:
        """Return what to compare in place of fields that each renewal of the login changes."""
        return {}

    @abstractmethod
    def _login(self) -> Login:
        """Return the login in the fields of the block."""

    @abstractmethod
    async def _renewed(self, login: Login) -> Tokens:
        """Ask the identity provider for new tokens. Raises NotAuthorizedError if it refuses."""

    @abstractmethod
    def _changes(self, tokens: Tokens) -> dict[str, SecretStr]:
        """Return the fields of the block that a renewal has changed."""


def refuse(message: str) -> NoReturn:
    """Raise the ConfigurationError for incomplete settings."""
    raise IncompleteSettingsError(message)


def block_named(platform: Platform, settings: Settings) -> str | None:
    """Return the name of the block that the settings name for a platform, or None. Raises ConfigurationError."""
    name = settings.ivcap_block if platform == "IVCAP" else settings.provena_block
    if name is not None:
        _check(settings)
    return name


def _check(settings: Settings) -> None:
    """Raise ConfigurationError if the settings are incomplete or contradict each other."""
    ivcap = {
        "IVCAP_URL": settings.ivcap_url,
        "IVCAP_BASE_URL": settings.ivcap_base_url,
        "IVCAP_JWT": settings.ivcap_jwt,
    }
    tokens = {
        "PROVENA_OFFLINE_TOKEN": settings.provena_offline_token,
        "PROVENA_CLIENT_SECRET": settings.provena_client_secret,
    }
    _only("IVCAP_FLOWS_IVCAP_BLOCK", settings.ivcap_block, {**ivcap, "IVCAP_CONTEXT": settings.ivcap_context})
    _only("IVCAP_FLOWS_PROVENA_BLOCK", settings.provena_block, tokens)
    _only("IVCAP_CONTEXT", settings.ivcap_context, ivcap)
    if settings.ivcap_jwt and not settings.ivcap_configured:
        refuse("IVCAP_JWT is set and IVCAP_URL is not. Set both, or neither for the embedded platforms.")
    if any(tokens.values()) and not settings.provena_configured:
        refuse(
            "A token for Provena is set and PROVENA_DOMAIN is not. Set PROVENA_DOMAIN and PROVENA_REALM, or remove "
            "PROVENA_OFFLINE_TOKEN and PROVENA_CLIENT_SECRET."
        )


def _only(name: str, value: str | None, others: Mapping[str, object]) -> None:
    """Raise ConfigurationError if a setting is given together with others that say the same."""
    beside = " and ".join(other for other, given in others.items() if given)
    if value and beside:
        refuse(f"{name} and {beside} are set, and both say where to log in. Unset one of them.")


def _settings_for(platform: Platform, settings: Settings, *, deployed: bool) -> Settings:
    """Return the settings for a platform: the given ones if they name it, or the embedded platform's.

    Blocks while the embedded platform starts. Raises PlatformOffError if only the other platform is configured, and
    ConfigurationError if none is and the run is deployed without IVCAP_FLOWS_EMBEDDED=1, or if settings are incomplete
    or contradict each other.
    """
    _check(settings)
    configured = {"IVCAP": settings.ivcap_configured, "Provena": settings.provena_configured}
    if configured[platform]:
        return settings
    if any(configured.values()):
        other = next(name for name in configured if name != platform)
        raise PlatformOffError(
            f"{platform} is off, because the environment names {other} alone. {_NEXT_STEP[platform]}", platform=platform
        )
    if deployed and not settings.embedded:
        raise ConfigurationError(
            f"This deployed run has no platform: nothing in the environment of this worker names one. "
            f"{_NEXT_STEP[platform]} The environment of the work pool counts, too. Set IVCAP_FLOWS_EMBEDDED=1 if the "
            "embedded platforms are meant."
        )
    return Settings(**local.ensure(settings.ivcap_local_dir).environment)
