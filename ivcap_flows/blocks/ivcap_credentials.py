"""Credentials of IVCAP as a Prefect block. Prefect stores its secrets encrypted and masks them when it shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from ivcap_flows.blocks.appearance import IVCAP_LOGO, documentation, form
from ivcap_flows.blocks.block_login import BlockLogin
from ivcap_flows.blocks.credentials import PlatformCredentials, refuse
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.http.auth import Auth, StaticToken, claims, expiry
from ivcap_flows.http.oauth import Tokens, renewed
from ivcap_flows.http.session import Session
from ivcap_flows.http.shared_login import Login, SharedToken
from ivcap_flows.identity import platform_id
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient

__all__ = ["Connection", "IvcapCredentials"]


class Connection(BaseModel):
    """How to reach IVCAP where its URL alone is not enough."""

    # Prefect's form shows the title of the model, not that of the field.
    model_config = ConfigDict(title="Rarely needed")

    host: str | None = Field(
        default=None,
        title="Host header",
        description="Host header to send in the place of the URL's own, as some gateways want.",
        examples=["ivcap.example.org"],
    )
    in_container: bool = Field(
        default=False,
        title="In a container",
        description="The URL is that of the sidecar in an IVCAP container, which adds the token itself.",
    )
    trusted_hosts: list[str] = Field(
        default_factory=list,
        title="Trusted hosts",
        description="Other hosts that the platform may name in links; they never get the token.",
        examples=[["files.example.org"]],
    )

    __get_pydantic_json_schema__ = form()


class IvcapCredentials(PlatformCredentials):
    """The URL of IVCAP and a login there, which `ivcap-flows login URL --block NAME` stores.

    Example:
        Load stored credentials and pass them to a task:
        ```python
        from ivcap_flows.blocks import IvcapCredentials

        credentials = IvcapCredentials.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "IVCAP Credentials"
    _block_type_slug = "ivcap-credentials"
    _logo_url: ClassVar[Any] = IVCAP_LOGO
    _documentation_url: ClassVar[Any] = documentation("use-the-real-platforms")
    _platform = "IVCAP"
    _login_option = "--block"
    _refresh_once = True

    url: str = Field(
        default="",
        title="URL",
        description="Base URL of IVCAP, without /1.",
        examples=["https://develop.ivcap.net"],
    )
    refresh_token: SecretStr | None = Field(
        default=None,
        title="Refresh token",
        description="Refresh token of the login, which the command ivcap-flows login URL --block NAME stores here. "
        "Each renewal replaces it and the access token in the saved block; do not put it into a second block.",
    )
    token: SecretStr | None = Field(
        default=None,
        title="Access token",
        description="Access token of the account. Alone it ends after hours: for trying out. With a refresh token, it "
        "is renewed.",
    )
    client_id: str | None = Field(
        default=None,
        title="Client id",
        description="Client of the identity provider; the default is the one that the deployment names.",
        examples=["my-service-account"],
    )
    client_secret: SecretStr | None = Field(
        default=None,
        title="Client secret",
        description="Secret of the client; without a refresh token, the service account of the client is used.",
    )
    context: str | None = Field(
        default=None,
        title="Context",
        description="Name of a context of the ivcap command on the machine that runs the flow, whose login is used; "
        "the name active stands for its active one. Without a URL, the context says where IVCAP is, too.",
        examples=["develop"],
    )
    connection: Connection = Field(
        default_factory=Connection, title="Rarely needed", description="Gateways, containers and other hosts."
    )

    # Code may leave out the URL, for a context.
    __get_pydantic_json_schema__ = form("url")

    @model_validator(mode="after")
    def _one_login(self) -> IvcapCredentials:
        if not (self.url or self.context):
            raise ValueError("IvcapCredentials need the url of IVCAP, or a context of the `ivcap` command.")
        if self.context and (self.renews or self.connection.in_container):
            raise ValueError("A context has its own login: leave out the refresh token, client and container.")
        if self.connection.in_container and self.renews:
            raise ValueError("The sidecar of a container adds the token: leave out the refresh token and client.")
        if not (self.context or self.connection.in_container or self.renews or self.token):
            raise ValueError("There is no token. Log in by `ivcap-flows login URL --block NAME`, or give a token.")
        if self.client_secret is not None and self.refresh_token is None and not self.client_id:
            raise ValueError("A client secret without a refresh token needs the client_id.")
        return self

    @property
    def renews(self) -> bool:
        """Whether the block has what it takes to get new access tokens."""
        return self.refresh_token is not None or self.client_secret is not None

    @classmethod
    def _from_settings(cls, settings: Settings) -> IvcapCredentials:
        if settings.ivcap_context:
            return cls(context=settings.ivcap_context, token=settings.ivcap_access_token)
        if settings.ivcap_url:
            if settings.ivcap_jwt is None:
                refuse("IVCAP_URL is set and IVCAP_JWT is not. Set IVCAP_JWT to an access token of your account.")
            return cls(url=settings.ivcap_url, token=settings.ivcap_jwt)
        return cls(url=settings.ivcap_base_url or "", connection=Connection(in_container=True))

    def get_client(self) -> IvcapClient:
        """Return a new client. Raises ConfigurationError if the token or the context is missing."""
        from ivcap_flows.ivcap.client import IvcapClient

        url, host, auth, account = self._reached()
        session = Session(
            url,
            platform="IVCAP",
            auth=auth,
            trusted_hosts=self.connection.trusted_hosts,
            rewrite_hosts=self.connection.in_container,
            host=host,
        )
        manager = Settings.current().secretmgr_proxy if self.connection.in_container else None
        return IvcapClient(session, secret_manager=manager, account=account)

    def _reached(self) -> tuple[str, str | None, Auth | None, str | None]:
        """Return the URL, the Host header, the token, and the account if it is known already."""
        host = self.connection.host
        if self.connection.in_container:
            return self.url, host, None, None
        if self.context:
            from ivcap_flows.ivcap.contexts import ContextFile, ContextLogin

            file = ContextFile()
            context = file.read(self.context)
            if self.url and platform_id(self.url) != platform_id(context.url):
                raise ConfigurationError(
                    f"The context {context.name!r} is one of {context.url}, and the credentials are for {self.url}. "
                    "Name a context of that deployment, or correct the url."
                )
            host = host or context.host
            if self.token is not None:
                return context.url, host, StaticToken(self.token), None
            return context.url, host, SharedToken(ContextLogin(file, context.name), context), context.account
        if self.renews:
            return self.url, host, BlockLogin(self).token(), None
        return self.url, host, StaticToken(self.token or ""), None

    def _when_renewed(self) -> dict[str, object]:
        if self._block_document_id is None or self.token is None or self.refresh_token is None:
            return {}
        account = claims(self.token.get_secret_value()).get("acc")
        return {"token": account, "refresh_token": str(self._block_document_id)}

    def _login(self) -> Login:
        # Without a refresh token, the access token is an earlier one of somebody, and not of the client credentials.
        access = None if self.refresh_token is None else self.token
        text = "" if access is None else access.get_secret_value()
        return Login(self.url, claims(text).get("acc"), access, self.refresh_token, expiry(text))

    async def _renewed(self, login: Login) -> Tokens:
        from ivcap_flows.ivcap.authinfo import provider_at

        provider = await provider_at(self.url, self.connection.host)
        return await renewed(
            provider.token_url,
            self.client_id or provider.client_id,
            refresh_token=login.refresh,
            client_secret=self.client_secret,
            audience=provider.audience if login.refresh is None else None,
        )

    def _changes(self, tokens: Tokens) -> dict[str, SecretStr]:
        # New access tokens are stored as well, so that one renewal serves all. Client credentials are not used up, so
        # each process gets its own tokens by them.
        return {} if tokens.refresh is None else {"token": tokens.access, "refresh_token": tokens.refresh}
