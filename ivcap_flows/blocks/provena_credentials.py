"""Credentials of Provena as a Prefect block. Prefect stores its secrets encrypted and masks them when it shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, SecretStr, model_validator

from ivcap_flows.blocks.appearance import PROVENA_LOGO, documentation, form
from ivcap_flows.blocks.block_login import BlockLogin
from ivcap_flows.blocks.credentials import PlatformCredentials, refuse
from ivcap_flows.http.auth import claims
from ivcap_flows.http.oauth import Tokens, renewed
from ivcap_flows.http.shared_login import Login
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.provena.client import Endpoints, ProvenaClient

__all__ = ["ProvenaCredentials", "addresses_in"]

Address = Literal["keycloak", "auth", "registry", "prov", "jobs", "datastore", "search", "handles"]


class ProvenaCredentials(PlatformCredentials):
    """The URLs of Provena, and a user or service account there.

    Example:
        Load stored credentials and pass them to a task:
        ```python
        from ivcap_flows.blocks import ProvenaCredentials

        credentials = ProvenaCredentials.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Provena Credentials"
    _block_type_slug = "provena-credentials"
    _logo_url: ClassVar[Any] = PROVENA_LOGO
    _documentation_url: ClassVar[Any] = documentation("use-the-real-platforms")
    _platform = "Provena"
    _login_option = "--provena"
    # Keycloak gives a new offline token at each renewal. Unless the realm revokes a token when it is used, the old one
    # stays valid.
    _refresh_once = False

    domain: str | None = Field(
        default=None,
        title="Domain",
        description="Domain of Provena, such as provena.example.org; each API has a subdomain of its own.",
        examples=["provena.example.org"],
    )
    realm: str = Field(title="Realm", description="Keycloak realm.", min_length=1, examples=["rrap"])
    offline_token: SecretStr | None = Field(
        default=None,
        title="Offline token",
        description="Offline (refresh) token of a user, which the command ivcap-flows login --provena NAME stores "
        "here. If the realm replaces it, the new one is stored in the saved block; do not put it into a second block.",
    )
    client_id: str = Field(
        default="automated-access",
        title="Client id",
        description="Keycloak client that the token belongs to.",
        examples=["automated-access"],
    )
    client_secret: SecretStr | None = Field(
        default=None,
        title="Client secret",
        description="Secret of a confidential client; its service account is used where there is no offline token.",
    )
    addresses: dict[Address, str] = Field(
        default_factory=dict,
        title="Addresses",
        description="URLs that do not follow from the domain, as a JSON object with the names keycloak, auth, "
        "registry, prov, jobs, datastore, search or handles.",
        examples=[{"keycloak": "https://login.example.org/auth"}],
    )
    trusted_hosts: list[str] = Field(
        default_factory=list,
        title="Trusted hosts",
        description="Other hosts than Amazon S3's that may hold the platform's files; they never get the token.",
        examples=[["files.example.org"]],
    )

    # Code may leave out the domain, for addresses of its own.
    __get_pydantic_json_schema__ = form("domain", "realm")

    @model_validator(mode="after")
    def _one_login(self) -> ProvenaCredentials:
        if not (self.domain or self.addresses):
            raise ValueError("ProvenaCredentials need the domain of Provena, or the addresses of its APIs.")
        if self.offline_token is None and self.client_secret is None:
            raise ValueError(
                "There is no login. Log in by `ivcap-flows login --provena NAME`, or give a client secret."
            )
        return self

    @classmethod
    def _from_settings(cls, settings: Settings) -> ProvenaCredentials:
        if not settings.provena_realm:
            refuse("Provena is configured and PROVENA_REALM is not set. Set it to the Keycloak realm.")
        if not (settings.provena_offline_token or settings.provena_client_secret):
            refuse(
                "Provena is configured and no token is set. Set PROVENA_OFFLINE_TOKEN (a user) or "
                "PROVENA_CLIENT_SECRET (a service account)."
            )
        return cls.located(
            settings, offline_token=settings.provena_offline_token, client_secret=settings.provena_client_secret
        )

    @classmethod
    def located(cls, found: Settings, **secrets: SecretStr | None) -> ProvenaCredentials:
        """Return credentials with the URLs from these settings, and only with the given secrets."""
        return cls(
            **secrets,
            domain=found.provena_domain,
            realm=found.provena_realm or "",
            client_id=found.provena_client_id,
            addresses=addresses_in(found),
        )

    def endpoints(self) -> Endpoints:
        """Return the URLs of the APIs. Raises ConfigurationError with the names of those that are missing."""
        from ivcap_flows.provena.client import Endpoints

        return Endpoints.of(domain=self.domain, realm=self.realm, **self.addresses)

    def get_client(self) -> ProvenaClient:
        """Return a new client. Raises ConfigurationError if a URL is missing."""
        from ivcap_flows.provena.client import ProvenaClient

        return ProvenaClient(self.endpoints(), BlockLogin(self).token(), trusted_hosts=self.trusted_hosts)

    def _when_renewed(self) -> dict[str, object]:
        if self._block_document_id is None or self.offline_token is None:
            return {}
        user = claims(self.offline_token.get_secret_value()).get("sub")
        return {"offline_token": (str(self._block_document_id), user)}

    def _login(self) -> Login:
        return Login(url=self.endpoints().realm, refresh=self.offline_token)

    async def _renewed(self, login: Login) -> Tokens:
        from ivcap_flows.provena.login import token_url

        return await renewed(
            token_url(login.url), self.client_id, refresh_token=login.refresh, client_secret=self.client_secret
        )

    def _changes(self, tokens: Tokens) -> dict[str, SecretStr]:
        return {} if tokens.refresh in (None, self.offline_token) else {"offline_token": tokens.refresh}


def addresses_in(found: Settings) -> dict[Address, str]:
    """Return the URLs of Provena that settings give one by one, by the names that ProvenaCredentials have for them."""
    addresses: dict[Address, str | None] = {
        "keycloak": found.provena_keycloak,
        "auth": found.provena_auth_api,
        "registry": found.provena_registry_api,
        "prov": found.provena_prov_api,
        "jobs": found.provena_job_api,
        "datastore": found.provena_data_store_api,
        "search": found.provena_search_api,
        "handles": found.provena_handle_api,
    }
    return {name: url for name, url in addresses.items() if url}
