"""Settings from the environment. Names are those of the official tools; docs/reference/settings.md lists them."""

from __future__ import annotations

import os
import re
import shlex
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ivcap_flows.errors import ConfigurationError

__all__ = ["Settings"]


_HOMES: Final = ("HOME", "XDG_DATA_HOME")
"""The other environment variables that determine the journal's default path."""
_PREFIX: Final = "IVCAP_FLOWS_"
_OF_TESTS: Final = re.compile(f"{_PREFIX}(TEST_.*|STANDARDS)")
"""The names with this prefix that this project's own tests read."""


def _default_journal() -> str:
    from platformdirs import user_data_path

    return f"sqlite:///{user_data_path('ivcap-flows', appauthor=False) / 'journal.sqlite'}"


class Settings(BaseSettings):
    """A snapshot of the environment. Make a new one to see a change. Secrets are `SecretStr` and never printed."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, case_sensitive=True, frozen=True)

    ivcap_url: str | None = Field(None, alias="IVCAP_URL", description="Base URL of IVCAP, without `/1`.")
    ivcap_base_url: str | None = Field(
        None, alias="IVCAP_BASE_URL", description="URL of the sidecar inside an IVCAP container; needs no token."
    )
    ivcap_jwt: SecretStr | None = Field(None, alias="IVCAP_JWT", description="Access token of IVCAP.")
    ivcap_context: str | None = Field(
        None,
        alias="IVCAP_CONTEXT",
        description="Name of the context of the `ivcap` command whose URL and login to use, or `active` for the active "
        "one. Cannot be combined with `IVCAP_URL`, `IVCAP_BASE_URL` or `IVCAP_JWT`.",
    )
    ivcap_access_token: SecretStr | None = Field(
        None,
        alias="IVCAP_ACCESS_TOKEN",
        description="Access token to use instead of the context's own, as in the `ivcap` command.",
    )
    ivcap_block: str | None = Field(
        None,
        alias="IVCAP_FLOWS_IVCAP_BLOCK",
        description="Name of the saved `IvcapCredentials` block to use where no credentials are given: by tasks, "
        "commands and the shipped deployments. Cannot be combined with `IVCAP_URL`, `IVCAP_BASE_URL`, `IVCAP_JWT` or "
        "`IVCAP_CONTEXT`.",
    )
    secretmgr_proxy: str = Field(
        "http://secretmgr.local",
        alias="SECRETMGR_PROXY",
        description="URL of the secret manager inside an IVCAP container.",
    )
    ivcap_local_dir: Path = Field(
        Path("ivcap-artifacts"),
        alias="IVCAP_LOCAL_DIR",
        description="State folder of the embedded platforms, below the folder in which the process works. An absolute "
        "path is one for all of them.",
    )

    provena_domain: str | None = Field(
        None, alias="PROVENA_DOMAIN", description="Domain of Provena; each API is `https://<prefix>.<domain>`."
    )
    provena_keycloak: str | None = Field(
        None, alias="PROVENA_KEYCLOAK", description="Base URL of Keycloak; default `https://auth.<domain>/auth`."
    )
    provena_realm: str | None = Field(None, alias="PROVENA_REALM", description="Keycloak realm.")
    provena_client_id: str = Field(
        "automated-access", alias="PROVENA_CLIENT_ID", description="Keycloak client that the token belongs to."
    )
    provena_client_secret: SecretStr | None = Field(
        None, alias="PROVENA_CLIENT_SECRET", description="Secret of a confidential client (client credentials)."
    )
    provena_offline_token: SecretStr | None = Field(
        None, alias="PROVENA_OFFLINE_TOKEN", description="Offline (refresh) token of the user."
    )
    provena_block: str | None = Field(
        None,
        alias="IVCAP_FLOWS_PROVENA_BLOCK",
        description="Name of the saved `ProvenaCredentials` block to use where no credentials are given. It says where "
        "Provena is, too. Cannot be combined with `PROVENA_OFFLINE_TOKEN` or `PROVENA_CLIENT_SECRET`.",
    )
    provena_auth_api: str | None = Field(None, alias="PROVENA_AUTH_API", description="Override of the auth API's URL.")
    provena_registry_api: str | None = Field(
        None, alias="PROVENA_REGISTRY_API", description="Override of the registry API's URL."
    )
    provena_prov_api: str | None = Field(None, alias="PROVENA_PROV_API", description="Override of the prov API's URL.")
    provena_job_api: str | None = Field(None, alias="PROVENA_JOB_API", description="Override of the job API's URL.")
    provena_data_store_api: str | None = Field(
        None, alias="PROVENA_DATA_STORE_API", description="Override of the data store API's URL."
    )
    provena_search_api: str | None = Field(
        None, alias="PROVENA_SEARCH_API", description="Override of the search API's URL; only searches need it."
    )
    provena_handle_api: str | None = Field(
        None, alias="PROVENA_HANDLE_API", description="Override of the id-service's URL; only administrators need it."
    )

    journal: str = Field(
        default_factory=_default_journal,
        alias="IVCAP_FLOWS_JOURNAL",
        description="SQLAlchemy URL of the journal: `sqlite:///path` or `postgresql://…`.",
    )
    sinks: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        alias="IVCAP_FLOWS_SINKS",
        description="Sinks that `sync` delivers to, comma separated: `ivcap`, `provena`, `provena:<workflows.yaml>`, "
        "`prov-json:<folder>`, `prov-n:<folder>`, `turtle:<folder>`, `ro-crate:<folder>`, `openlineage`.",
    )
    sync_at_end: bool = Field(
        False,
        alias="IVCAP_FLOWS_SYNC_AT_END",
        description="Start `ivcap-flows sync` in a separate process when a run ends or parks.",
    )
    artifacts: Literal["off", "summary", "all"] = Field(
        "all",
        alias="IVCAP_FLOWS_ARTIFACTS",
        description="Artifacts that a run gets in Prefect: `all`; `summary`, only the page of what it was; or `off`.",
    )
    max_orders: int | None = Field(
        None, alias="IVCAP_FLOWS_MAX_ORDERS", description="Maximum number of orders and jobs in one logical run."
    )
    polls_per_minute: int = Field(
        1200,
        ge=1,
        alias="IVCAP_FLOWS_POLLS_PER_MINUTE",
        description="Maximum number of requests per minute with which a process polls work, for each credentials.",
    )
    concurrency_limit: str | None = Field(
        None,
        alias="IVCAP_FLOWS_CONCURRENCY_LIMIT",
        description="Name of a global concurrency limit of Prefect. Tasks take one of its slots for each request that "
        "places an order, requests a job or registers model runs.",
    )
    park_after: float = Field(
        60.0,
        ge=0,
        alias="IVCAP_FLOWS_PARK_AFTER",
        description="Seconds that `wait_or_park` waits in its process before the run parks.",
    )
    embedded: bool = Field(
        False, alias="IVCAP_FLOWS_EMBEDDED", description="Allow a deployed run to use the embedded platforms."
    )
    reuse: bool | None = Field(
        None,
        alias="IVCAP_FLOWS_REUSE",
        description="Reuse earlier orders and jobs of equal requests, as with `reuse=True`: in all tasks (`1`) or in "
        "none (`0`). By default, the argument of each task decides.",
    )
    pay_again: bool = Field(
        False,
        alias="IVCAP_FLOWS_PAY_AGAIN",
        description="Let each new run place its orders and jobs anew, whatever their `once_per` and `reuse` say. A run "
        "still pays once, however often it is retried.",
    )
    fresh: bool = Field(
        False, alias="IVCAP_FLOWS_FRESH", description="Begin a new logical run instead of continuing an unfinished one."
    )

    def __init__(self, **values: object) -> None:
        try:
            super().__init__(**values)  # type: ignore[arg-type]  # pydantic-settings reads the rest from the environment
        except ValidationError as error:
            # Leave out the values: one of them may be a token.
            wrong = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
            raise ConfigurationError(f"A setting in the environment cannot be understood. {wrong}.") from None

    @classmethod
    def current(cls) -> Settings:
        """Return the settings from the present environment; the same object until the environment changes."""
        return _snapshot(tuple(map(os.environ.get, _names())))

    @model_validator(mode="before")
    @classmethod
    def _strip(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Strip the values, and leave out blank ones: a newline at the end of a token is no part of it."""
        _check_file(values.get("IVCAP_FLOWS_JOURNAL"))
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value != ""}

    @field_validator("sinks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @classmethod
    def settings_names(cls) -> dict[str, str]:
        """Return the description of each environment variable, in the order of declaration."""
        return {field.alias or name: field.description or "" for name, field in cls.model_fields.items()}

    @classmethod
    def unknown(cls) -> list[str]:
        """Return a sentence for each variable of this package's in the environment that is no setting."""
        known = [name for name in cls.settings_names() if name.startswith(_PREFIX)]
        found = sorted(name for name in os.environ if name.upper().startswith(_PREFIX) and name not in known)
        return [_unknown(name, known) for name in found if not _OF_TESTS.fullmatch(name)]

    @property
    def ivcap_configured(self) -> bool:
        return bool(self.ivcap_url or self.ivcap_base_url or self.ivcap_context or self.ivcap_block)

    @property
    def embedded_in(self) -> Path | None:
        """The folder of the embedded platforms' state; None if the settings name a platform."""
        named = self.ivcap_configured or self.provena_configured
        return None if named else self.ivcap_local_dir.expanduser().absolute()

    @property
    def provena_configured(self) -> bool:
        return any(
            (
                self.provena_block,
                self.provena_domain,
                self.provena_keycloak,
                self.provena_registry_api,
                self.provena_prov_api,
            )
        )


def _unknown(name: str, known: list[str]) -> str:
    # The prefix, which all have, would make any two alike.
    short = {each.removeprefix(_PREFIX): each for each in known}
    near = get_close_matches(name.upper().removeprefix(_PREFIX), short, 1)
    step = f"Did you mean {short[near[0]]}?" if near else "Correct its name, or unset it."
    return f"{name} is no setting of ivcap-flows, so it has no effect. {step}"


def _check_file(journal: str | None) -> None:
    """Raise ConfigurationError if the URL of a journal names a file only with the blanks around it."""
    if journal is None or journal == journal.strip():
        return
    named, meant = (Path(url.removeprefix("sqlite:///")).expanduser() for url in (journal, journal.strip()))
    if named.exists() and not meant.exists():
        move = shlex.join(("ivcap-flows", "journal", "move", journal, journal.strip()))
        raise ConfigurationError(
            f"The journal is in a file whose name ends with a blank: {str(named)!r}. Settings are read without blanks "
            f"around them, so IVCAP_FLOWS_JOURNAL cannot name it. Run `{move}`."
        )


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    return (*Settings.settings_names(), *_HOMES)


@lru_cache(maxsize=4)
def _snapshot(environment: tuple[str | None, ...]) -> Settings:
    """Read the settings. `environment` is only the key of the cache: reading takes as long as a small request."""
    return Settings()
