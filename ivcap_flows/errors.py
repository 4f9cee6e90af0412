"""All errors of the package, as one tree.

    IvcapFlowsError
    ├── ConfigurationError          settings, credentials or files that the user must change
    │   ├── IncompleteSettingsError a required setting is missing; also a ValueError
    │   └── PlatformOffError        the settings do not name the platform of this task
    ├── InputError                  the caller gave a wrong value
    │   ├── ParameterError          wrong parameters of a service, all faults at once
    │   ├── SourceChangedError      a file changed while it was hashed or sent
    │   └── ForeignHandleError      a handle of one platform or account used with credentials of another
    ├── PlatformError               a platform refused a request, or did not reply
    │   ├── UnreachableError        no reply: connection, host name, TLS, time-out
    │   ├── BadRequestError         400, 415 and other refusals
    │   ├── NotAuthorizedError      401
    │   ├── ForbiddenError          403
    │   ├── NotFoundError           404, 410
    │   ├── ConflictError           409
    │   ├── InvalidParameterError   422
    │   ├── NotUniqueError          424
    │   ├── UnavailableError        408, 423, 425, 429 and 5xx
    │   └── ProtocolError           a reply that the platform's API contract does not allow
    │       └── MisfitReplyError    a reply that is cut off, or answers another request
    ├── IntegrityError              bytes with another sha256 or size than expected
    ├── OutcomeError                remote work failed
    │   ├── OrderFailedError
    │   ├── JobFailedError
    │   └── RegistrationFailedError
    ├── WaitTimeoutError            the caller's time-out passed; the remote work continues
    ├── DurabilityError             a guarantee could not be kept, so nothing more is sent
    │   ├── InDoubtError            it cannot be told which effect on the platform is ours
    │   ├── FencedError             another process has taken the effect over
    │   ├── SupersededError         somebody else changed an aspect since it was read
    │   └── SpendLimitError         the run would ask for more orders and jobs than it may
    ├── JournalError                the journal cannot be opened, read or written
    │   ├── JournalKeyError         the journal's key file is missing, or has another key
    │   ├── JournalMovedError       the journal is elsewhere now, or its move here has not ended
    │   └── NewerSchemaError        the tables of the journal, or of the state folder, are another version's
    └── EmbeddedPlatformError       the embedded platform could not be started or reached

Each error carries its data as attributes and survives pickling. `retryable` says whether repeating the same call can
succeed. No message contains a token.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "DurabilityError",
    "EmbeddedPlatformError",
    "FencedError",
    "ForbiddenError",
    "ForeignHandleError",
    "InDoubtError",
    "IncompleteSettingsError",
    "InputError",
    "IntegrityError",
    "InvalidParameterError",
    "IvcapFlowsError",
    "JobFailedError",
    "JournalError",
    "JournalKeyError",
    "JournalMovedError",
    "MisfitReplyError",
    "NewerSchemaError",
    "NotAuthorizedError",
    "NotFoundError",
    "NotUniqueError",
    "OrderFailedError",
    "OutcomeError",
    "ParameterError",
    "PlatformError",
    "PlatformOffError",
    "ProtocolError",
    "RegistrationFailedError",
    "SourceChangedError",
    "SpendLimitError",
    "SupersededError",
    "UnavailableError",
    "UnreachableError",
    "WaitTimeoutError",
]


def _rebuild(cls: type[IvcapFlowsError], message: str, data: dict[str, Any]) -> IvcapFlowsError:
    return cls(message, **data)


class IvcapFlowsError(Exception):
    """Base class of all errors. `data` holds the keyword arguments; each of them is also an attribute."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def __getattr__(self, name: str) -> Any:
        data: dict[str, Any] = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.data)


class ConfigurationError(IvcapFlowsError):
    """The user must change settings, credentials or files; the message says which."""


class IncompleteSettingsError(ConfigurationError, ValueError):
    """A required setting is missing, such as the URL for a token; also a ValueError, as in the official client."""


class PlatformOffError(ConfigurationError):
    """The settings name only the other platform, so this one is switched off. Data: `platform`."""


class InputError(IvcapFlowsError):
    """The caller gave a wrong value; nothing was sent."""


class ParameterError(InputError):
    """A service does not accept the parameters. Data: `service`, `faults` (a list of sentences)."""


class SourceChangedError(InputError):
    """A file changed after it was hashed and before its upload was complete. Data: `path`."""


class ForeignHandleError(InputError):
    """A handle belongs to another platform than the credentials (data: `urn`, `handle_platform`, `platform`), or to
    another account that they cannot see the work of (data: `urn`, `handle_account`, `account`)."""


class PlatformError(IvcapFlowsError):
    """A platform refused a request, or did not reply.

    Data: `platform`, `method`, `path`, `status` (None without a reply), `detail` (the platform's own words), and
    `nothing_made` (True) if the reply says that a refused request made nothing, whatever its status.
    """


class UnreachableError(PlatformError):
    """The platform did not reply: name resolution, connection, TLS or time-out."""

    retryable = True


class BadRequestError(PlatformError):
    """The platform refused the request as malformed (400, 415 and others)."""


class NotAuthorizedError(PlatformError):
    """The token is missing, wrong or expired, or (Provena) its owner may not see the item (401)."""


class ForbiddenError(PlatformError):
    """The token lacks a scope, or a policy forbids the request (403)."""


class NotFoundError(PlatformError):
    """The platform does not have the thing, or hides it from this user (404, 410)."""


class ConflictError(PlatformError):
    """The thing exists already, or is in another state than expected (409)."""


class InvalidParameterError(PlatformError):
    """The platform refused a parameter or field (422). `detail` names it."""


class NotUniqueError(PlatformError):
    """Several active aspects match where exactly one should be replaced (424)."""


class UnavailableError(PlatformError):
    """The platform cannot answer now (408, 423, 425, 429, 5xx). Data may hold `retry_after` in seconds."""

    retryable = True


class ProtocolError(PlatformError):
    """A reply breaks the platform's API contract, such as a body that is not JSON or a URL of a foreign host."""


class MisfitReplyError(ProtocolError):
    """A reply is cut off or answers another request, which intermediaries cause. The next one may be right."""

    retryable = True


class IntegrityError(IvcapFlowsError):
    """Bytes have another sha256 or size than expected. Data: `expected`, `found`, and the `urn` or `path`."""


class OutcomeError(IvcapFlowsError):
    """Remote work failed."""


class OrderFailedError(OutcomeError):
    """Orders ended as `failed` or `error`. Data: `orders` (handles), `logs` (the end of each log, by URN), and where
    `run_orders` then stopped, `not_requested` (the keys or numbers of the steps)."""


class JobFailedError(OutcomeError):
    """Jobs ended as `failed` or `error`. Data: `jobs` (handles), and `not_requested` as for orders."""


class RegistrationFailedError(OutcomeError):
    """Provena refused a record, or its registration job failed. Data: `session_id`, `detail`."""


class WaitTimeoutError(IvcapFlowsError):
    """The caller's time-out passed. The remote work continues, and can be waited for again. Data: `pending` (URNs)."""

    retryable = True


class DurabilityError(IvcapFlowsError):
    """A guarantee could not be kept, so this call sends nothing more."""


class InDoubtError(DurabilityError):
    """It cannot be told which effect on the platform is ours, if any: the user decides. Data: `key`, `candidates`."""


class FencedError(DurabilityError):
    """Another process has taken the effect over, so this one must not continue with it. Data: `key`."""

    retryable = True


class SupersededError(DurabilityError):
    """Somebody else changed an aspect after this process had read it. Data: `ours`, `theirs`."""


class SpendLimitError(DurabilityError):
    """The run would ask for more orders and jobs than IVCAP_FLOWS_MAX_ORDERS allows. Data: `limit`, `placed`,
    `service`."""


class JournalError(IvcapFlowsError):
    """The journal cannot be opened, read or written. Data: `url` (without password)."""

    retryable = True


class JournalKeyError(JournalError):
    """The key file of the journal is missing, or has another key than before. Data: `url`, `key_file` (its path)."""

    retryable = False


class JournalMovedError(JournalError):
    """The journal was moved to another database, or its move to this one, or the undoing of an upgrade, has not ended.

    Data: `url`, and `to` or `source`, the other database (both without password).
    """

    retryable = False


class NewerSchemaError(JournalError):
    """The journal, or the embedded platforms' folder, has tables that need another version of the package.

    Nothing was changed. Data: `found`, `known`.
    """

    retryable = False


class EmbeddedPlatformError(IvcapFlowsError):
    """The embedded platform could not be started or reached. Data: `directory`."""

    retryable = True
