"""Credentials as Prefect blocks. Prefect stores the secrets encrypted and masks them wherever it shows a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from prefect.blocks.abstract import CredentialsBlock
from pydantic import ConfigDict, Field, SecretStr, model_validator

from ivcap_flows import loop
from ivcap_flows.blocks.block_login import IvcapBlockLogin, ProvenaBlockLogin
from ivcap_flows.blocks.environment import refuse, settings_for
from ivcap_flows.blocks.load import load_block
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.http.auth import Auth, StaticToken
from ivcap_flows.http.session import Session
from ivcap_flows.http.shared_login import SharedToken
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    # A flow that uses one platform need not import the other's client.
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.provena.client import Endpoints, ProvenaClient

__all__ = ["IvcapCredentials", "ProvenaCredentials"]

# Prefect's own image for a secret; a block must name a square image on the web.
_KEY_IMAGE = "https://cdn.sanity.io/images/3ugk85nk/production/c6f20e556dd16effda9df16551feecfb5822092b-48x48.png"

# Errors leave out the input, which may be a token that is not a SecretStr yet.
_HIDDEN = ConfigDict(hide_input_in_errors=True)


class IvcapCredentials(CredentialsBlock):
    """The URL of IVCAP and the token of an account there.

    Example:
        Load stored credentials and pass them to a task:
        ```python
        from ivcap_flows.blocks import IvcapCredentials

        credentials = IvcapCredentials.load("BLOCK_NAME")
        ```
    """

    model_config = _HIDDEN
    _block_type_name = "IVCAP Credentials"
    _block_type_slug = "ivcap-credentials"
    _logo_url: ClassVar[Any] = _KEY_IMAGE
    _documentation_url: ClassVar[Any] = "https://ivcap-works.github.io/ivcap-client-sdk-python/"

    url: str = Field(default="", description="Base URL of IVCAP, without `/1`; not with a context, which has its own.")
    token: SecretStr | None = Field(
        default=None,
        description="Access token of the account. Alone it ends after hours; with a refresh token, it is renewed. With "
        "a context, it is used in the place of the context's own.",
    )
    refresh_token: SecretStr | None = Field(
        default=None,
        description="Refresh token of the login, which `ivcap-flows login --block NAME` stores here. Each renewal "
        "replaces it and the access token in the saved block; do not put it into a second block.",
    )
    client_id: str | None = Field(
        default=None,
        description="Client of the identity provider; the default is the one that the deployment names.",
    )
    client_secret: SecretStr | None = Field(
        default=None,
        description="Secret of the client; without a refresh token, the service account of the client is used.",
    )
    context: str | None = Field(
        default=None,
        description="Name of a context of the `ivcap` command on the machine that runs the flow, whose URL and login "
        "are used; `active` for its active one.",
    )
    host: str | None = Field(
        default=None, description="Host header to send in the place of the URL's own, as some gateways want."
    )
    in_container: bool = Field(
        default=False,
        description="The URL is that of the sidecar in an IVCAP container, which adds the token itself.",
    )
    trusted_hosts: list[str] = Field(
        default_factory=list,
        description="Other hosts that the platform may name in links; they never get the token.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> IvcapCredentials:
        if bool(self.url) == bool(self.context) or (self.context and self.in_container):
            raise ValueError("IvcapCredentials name either a url or a context of the `ivcap` command.")
        if self.renews and (self.context or self.in_container):
            raise ValueError("A refresh token or client secret goes with a url, not with a context or a container.")
        if self.client_secret is not None and self.refresh_token is None and not self.client_id:
            raise ValueError("A client secret without a refresh token needs the client_id.")
        return self

    @property
    def renews(self) -> bool:
        """Whether the block has what it takes to get new access tokens."""
        return self.refresh_token is not None or self.client_secret is not None

    @classmethod
    def from_environment(cls, settings: Settings | None = None, *, deployed: bool = False) -> IvcapCredentials:
        """Return the credentials that the environment gives, or those of the embedded platform if it names no platform.

        Set `deployed` if the run belongs to a deployment; such a run uses the embedded platform only with
        IVCAP_FLOWS_EMBEDDED=1. Raises ConfigurationError (also a ValueError) for a URL or a token alone, and for a
        context beside them; PlatformOffError if only Provena is configured.
        """
        found = settings_for("IVCAP", settings, deployed=deployed)
        if found.ivcap_block:
            return loop.run(load_block(cls, found.ivcap_block))
        if found.ivcap_context:
            return cls(context=found.ivcap_context, token=found.ivcap_access_token)
        if found.ivcap_url:
            if found.ivcap_jwt is None:
                refuse("IVCAP_URL is set and IVCAP_JWT is not. Set IVCAP_JWT to an access token of your account.")
            return cls(url=found.ivcap_url, token=found.ivcap_jwt)
        return cls(url=found.ivcap_base_url or "", in_container=True)

    def get_client(self) -> IvcapClient:
        """Return a new client. Raises ConfigurationError if the token or the context is missing."""
        from ivcap_flows.ivcap.client import IvcapClient

        url, host, auth, account = self._reached()
        session = Session(
            url,
            platform="IVCAP",
            auth=auth,
            trusted_hosts=self.trusted_hosts,
            rewrite_hosts=self.in_container,
            host=host,
        )
        manager = Settings.current().secretmgr_proxy if self.in_container else None
        return IvcapClient(session, secret_manager=manager, account=account)

    def _reached(self) -> tuple[str, str | None, Auth | None, str | None]:
        """Return the URL, the Host header, the token, and the account if it is known already."""
        if self.in_container:
            return self.url, self.host, None, None
        if self.context:
            from ivcap_flows.ivcap.contexts import ContextFile, ContextLogin

            file = ContextFile()
            context = file.read(self.context)
            host = self.host or context.host
            if self.token is not None:
                return context.url, host, StaticToken(self.token), None
            return context.url, host, SharedToken(ContextLogin(file, context.name), context), context.account
        if self.renews:
            return self.url, self.host, IvcapBlockLogin(self).token(), None
        if self.token is None:
            raise ConfigurationError(
                f"There is no token for IVCAP at {self.url}. Log in by `ivcap-flows login --block NAME`, or set one in "
                "the credentials (`token`) or as IVCAP_JWT."
            )
        return self.url, self.host, StaticToken(self.token), None


class ProvenaCredentials(CredentialsBlock):
    """The URLs of Provena, and a user or service account there.

    Example:
        Load stored credentials and pass them to a task:
        ```python
        from ivcap_flows.blocks import ProvenaCredentials

        credentials = ProvenaCredentials.load("BLOCK_NAME")
        ```
    """

    model_config = _HIDDEN
    _block_type_name = "Provena Credentials"
    _block_type_slug = "provena-credentials"
    _logo_url: ClassVar[Any] = _KEY_IMAGE
    _documentation_url: ClassVar[Any] = "https://docs.provena.io/"

    domain: str | None = Field(default=None, description="Domain of Provena; each API is `https://<prefix>.<domain>`.")
    realm: str = Field(description="Keycloak realm.")
    client_id: str = Field(default="automated-access", description="Keycloak client that the token belongs to.")
    offline_token: SecretStr | None = Field(default=None, description="Offline (refresh) token of a user.")
    client_secret: SecretStr | None = Field(
        default=None,
        description="Secret of a confidential client; its service account is used where there is no offline token.",
    )
    keycloak: str | None = Field(
        default=None, description="Base URL of Keycloak; the default is `https://auth.<domain>/auth`."
    )
    auth_api: str | None = Field(default=None, description="URL of the auth API, where it is not the default.")
    registry_api: str | None = Field(default=None, description="URL of the registry API, where it is not the default.")
    prov_api: str | None = Field(default=None, description="URL of the prov API, where it is not the default.")
    job_api: str | None = Field(default=None, description="URL of the job API, where it is not the default.")
    data_store_api: str | None = Field(
        default=None, description="URL of the data store API, where it is not the default."
    )
    search_api: str | None = Field(default=None, description="URL of the search API, where it is not the default.")
    handle_api: str | None = Field(default=None, description="URL of the id-service, where it is not the default.")
    trusted_hosts: list[str] = Field(
        default_factory=list,
        description="Other hosts than Amazon S3's that may hold the platform's files; they never get the token.",
    )

    @classmethod
    def from_environment(cls, settings: Settings | None = None, *, deployed: bool = False) -> ProvenaCredentials:
        """Return the credentials that the environment gives, or those of the embedded platform if it names no platform.

        `deployed` is as for IvcapCredentials. Raises ConfigurationError (also a ValueError) if the realm or a token is
        missing, and PlatformOffError if only IVCAP is configured.
        """
        found = settings_for("Provena", settings, deployed=deployed)
        if found.provena_block:
            return loop.run(load_block(cls, found.provena_block))
        if not found.provena_realm:
            refuse("Provena is configured and PROVENA_REALM is not set. Set it to the Keycloak realm.")
        if not (found.provena_offline_token or found.provena_client_secret):
            refuse(
                "Provena is configured and no token is set. Set PROVENA_OFFLINE_TOKEN (a user) or "
                "PROVENA_CLIENT_SECRET (a service account)."
            )
        return cls.located(found, offline_token=found.provena_offline_token, client_secret=found.provena_client_secret)

    @classmethod
    def located(cls, found: Settings, **secrets: SecretStr | None) -> ProvenaCredentials:
        """Return credentials with the URLs from these settings, and only with the given secrets."""
        return cls(
            **secrets,
            domain=found.provena_domain,
            realm=found.provena_realm or "",
            client_id=found.provena_client_id,
            keycloak=found.provena_keycloak,
            auth_api=found.provena_auth_api,
            registry_api=found.provena_registry_api,
            prov_api=found.provena_prov_api,
            job_api=found.provena_job_api,
            data_store_api=found.provena_data_store_api,
            search_api=found.provena_search_api,
            handle_api=found.provena_handle_api,
        )

    def endpoints(self) -> Endpoints:
        """Return the URLs of the APIs. Raises ConfigurationError with the names of those that are missing."""
        from ivcap_flows.provena.client import Endpoints

        return Endpoints.of(
            domain=self.domain,
            realm=self.realm,
            keycloak=self.keycloak,
            auth=self.auth_api,
            registry=self.registry_api,
            prov=self.prov_api,
            jobs=self.job_api,
            datastore=self.data_store_api,
            search=self.search_api,
            handles=self.handle_api,
        )

    def get_client(self) -> ProvenaClient:
        """Return a new client. Raises ConfigurationError if a URL or the token is missing."""
        from ivcap_flows.provena.client import ProvenaClient
        from ivcap_flows.provena.login import client_credentials

        endpoints = self.endpoints()
        auth: Auth
        if self.offline_token is not None:
            auth = ProvenaBlockLogin(self).token()
        elif self.client_secret is not None:
            auth = client_credentials(endpoints.realm, self.client_id, self.client_secret)
        else:
            raise ConfigurationError(
                f"There is no token for Provena at {endpoints.realm}. Set `offline_token` or `client_secret` in the "
                "credentials, or PROVENA_OFFLINE_TOKEN."
            )
        return ProvenaClient(endpoints, auth, trusted_hosts=self.trusted_hosts)
