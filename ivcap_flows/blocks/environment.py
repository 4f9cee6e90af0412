"""Choose the platforms from the environment: the real ones that it names, or the embedded ones if it names none.

For IVCAP the rules of the official client apply (ivcap-client, `ivcap.py`): IVCAP_URL takes precedence over
IVCAP_BASE_URL; the first needs a token, the second none; a token or a URL alone is a ValueError. A context of the
`ivcap` command is used only if IVCAP_CONTEXT names it, and excludes the other variables.
"""

from __future__ import annotations

from typing import Final, Literal, NoReturn

from ivcap_flows import local
from ivcap_flows.errors import ConfigurationError, IncompleteSettingsError, PlatformOffError
from ivcap_flows.settings import Settings

__all__ = ["Platform", "refuse", "settings_for"]

Platform = Literal["IVCAP", "Provena"]

_NEXT_STEP: Final[dict[Platform, str]] = {
    "IVCAP": "Set IVCAP_URL and IVCAP_JWT, or IVCAP_CONTEXT, or pass credentials (IvcapCredentials).",
    "Provena": "Set PROVENA_DOMAIN, PROVENA_REALM and PROVENA_OFFLINE_TOKEN, or pass credentials (ProvenaCredentials).",
}


def refuse(message: str) -> NoReturn:
    """Raise the ConfigurationError for incomplete settings."""
    raise IncompleteSettingsError(message)


def settings_for(platform: Platform, settings: Settings | None = None, *, deployed: bool = False) -> Settings:
    """Return the settings for a platform: the given ones (default: the environment), or the embedded platform's.

    Blocks while the embedded platform starts. Raises PlatformOffError if only the other platform is configured, and
    ConfigurationError if none is and the run is deployed without IVCAP_FLOWS_EMBEDDED=1, or if settings are incomplete
    or contradict each other.
    """
    settings = settings or Settings.current()
    beside = {
        "IVCAP_URL": settings.ivcap_url,
        "IVCAP_BASE_URL": settings.ivcap_base_url,
        "IVCAP_JWT": settings.ivcap_jwt,
    }
    if settings.ivcap_context and any(beside.values()):
        others = " and ".join(name for name, value in beside.items() if value)
        refuse(f"IVCAP_CONTEXT and {others} are set, and both say where IVCAP is. Unset one of them.")
    if settings.ivcap_jwt and not settings.ivcap_configured:
        refuse("IVCAP_JWT is set and IVCAP_URL is not. Set both, or neither for the embedded platforms.")
    if (settings.provena_offline_token or settings.provena_client_secret) and not settings.provena_configured:
        refuse(
            "A token for Provena is set and PROVENA_DOMAIN is not. Set PROVENA_DOMAIN and PROVENA_REALM, or remove "
            "PROVENA_OFFLINE_TOKEN and PROVENA_CLIENT_SECRET."
        )
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
            "This deployed run has no platform: IVCAP_URL is not set on this worker. Set IVCAP_URL and IVCAP_JWT in "
            "the work pool's or the worker's environment, or pass credentials; set IVCAP_FLOWS_EMBEDDED=1 if the "
            "embedded platforms are meant."
        )
    return _embedded_settings(settings)


def _embedded_settings(settings: Settings) -> Settings:
    embedded = local.ensure(settings.ivcap_local_dir)
    return Settings(**embedded.environment)
