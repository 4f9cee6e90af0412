"""Every error of the package, in one tree.

    IvcapFlowsError
    ├── ConfigurationError          settings, credentials or files that the user has to change
    │   ├── IncompleteSettingsError settings of which a part is missing; also a ValueError
    │   └── PlatformOffError        a task of a platform that the settings leave switched off
    ├── InputError                  a value given by the caller is wrong
    │   ├── ParameterError          parameters of a service, all faults at once
    │   ├── SourceChangedError      a file changed while it was hashed or sent
    │   └── ForeignHandleError      a handle of one platform used with another's credentials
    ├── PlatformError               a platform's reply, or the lack of one
    │   ├── UnreachableError        no reply: connection, name, TLS, time-out
    │   ├── BadRequestError         400, 415 and other refusals
    │   ├── NotAuthorizedError      401
    │   ├── ForbiddenError          403
    │   ├── NotFoundError           404, 410
    │   ├── ConflictError           409
    │   ├── InvalidParameterError   422
    │   ├── NotUniqueError          424
    │   ├── UnavailableError        408, 423, 425, 429 and 5xx
    │   └── ProtocolError           a reply that the contract does not allow
    ├── IntegrityError              bytes that do not have the sha256 or size they should have
    ├── OutcomeError                remote work that ended badly
    │   ├── OrderFailedError
    │   ├── JobFailedError
    │   └── RegistrationFailedError
    ├── WaitTimeoutError            the caller's deadline passed; the work goes on
    ├── DurabilityError             a guarantee that could not be given, so nothing was sent
    │   ├── InDoubtError            it cannot be told which of several effects is ours
    │   ├── DivergenceError         a replayed flow asks for something else than before
    │   ├── FencedError             another process has taken the effect over
    │   ├── SupersededError         an aspect was changed by another since it was read
    │   └── SpendLimitError         the flow would order more than `max_orders`
    ├── JournalError                the journal cannot be read or written
    │   ├── JournalLossError        rows that were in the journal are gone
    │   └── NewerSchemaError        made by a newer version of the package
    └── EmbeddedPlatformError                   the embedded platform could not be started or reached

Each error carries its data as attributes, survives pickling, and says in `retryable` whether doing the same again can
help. No message holds a token.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "DivergenceError",
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
    "JournalLossError",
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
    """Base of all errors. `data` is what the keyword arguments gave; each is an attribute too."""

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
    """Settings, credentials or files that the user has to change; the message names the next step."""


class IncompleteSettingsError(ConfigurationError, ValueError):
    """Settings of which a part is missing, such as a token without a URL; a ValueError as in the official client."""


class PlatformOffError(ConfigurationError):
    """The settings name one platform and leave this one off. Data: `platform`."""


class InputError(IvcapFlowsError):
    """A value given by the caller is wrong; nothing was sent."""


class ParameterError(InputError):
    """Parameters that a service does not take. Data: `service`, `faults` (a list of sentences)."""


class SourceChangedError(InputError):
    """A file changed between its hash and the end of its upload. Data: `path`."""


class ForeignHandleError(InputError):
    """A handle of another platform than the credentials'. Data: `urn`, `handle_platform`, `platform`."""


class PlatformError(IvcapFlowsError):
    """A refused request. Data: `platform`, `method`, `path`, `status` (None without a reply), `detail` (its words)."""


class UnreachableError(PlatformError):
    """No reply came: name resolution, connection, TLS or time-out."""

    retryable = True


class BadRequestError(PlatformError):
    """The platform refused the request as malformed (400, 415 and others)."""


class NotAuthorizedError(PlatformError):
    """The token is missing, wrong or expired, or (Provena) the item is not open to its owner (401)."""


class ForbiddenError(PlatformError):
    """The token lacks a scope or the policy forbids it (403)."""


class NotFoundError(PlatformError):
    """The platform knows no such thing, or hides it (404, 410)."""


class ConflictError(PlatformError):
    """The thing exists already or has another state than assumed (409)."""


class InvalidParameterError(PlatformError):
    """The platform refused a parameter or field (422). `detail` names it."""


class NotUniqueError(PlatformError):
    """Several active aspects where one was to be replaced (424)."""


class UnavailableError(PlatformError):
    """The platform could not answer now (408, 423, 425, 429, 5xx). Data may hold `retry_after` in seconds."""

    retryable = True


class ProtocolError(PlatformError):
    """A reply that the contract does not allow, such as a body that is no JSON or a URL of a foreign host."""


class IntegrityError(IvcapFlowsError):
    """Bytes differ from what was promised. Data: `expected`, `found`, and the `urn` or `path`."""


class OutcomeError(IvcapFlowsError):
    """Remote work ended badly."""


class OrderFailedError(OutcomeError):
    """Orders that ended as `failed` or `error`. Data: `orders` (handles), `logs` (URN to the tail of its log)."""


class JobFailedError(OutcomeError):
    """Jobs that ended as `failed` or `error`. Data: `jobs` (handles)."""


class RegistrationFailedError(OutcomeError):
    """Provena refused a record or its job failed. Data: `session_id`, `detail`."""


class WaitTimeoutError(IvcapFlowsError):
    """The caller's deadline passed. The remote work goes on; waiting again continues. Data: `pending` (URNs)."""

    retryable = True


class DurabilityError(IvcapFlowsError):
    """A guarantee could not be given, so nothing was sent."""


class InDoubtError(DurabilityError):
    """It cannot be told which effect is ours. Data: `key`, `candidates` (URNs)."""


class DivergenceError(DurabilityError):
    """A replayed flow asks for something new while an earlier order goes unasked. Data: `asked`, `earlier`."""


class FencedError(DurabilityError):
    """Another process has taken an effect over, so this one may not go on with it. Data: `key`."""

    retryable = True


class SupersededError(DurabilityError):
    """An aspect was changed by another since it was read. Data: `ours`, `theirs`."""


class SpendLimitError(DurabilityError):
    """The flow would place more orders than `max_orders` allows. Data: `limit`, `placed`, `service`."""


class JournalError(IvcapFlowsError):
    """The journal cannot be opened, read or written. Data: `url` (without password)."""

    retryable = True


class JournalLossError(JournalError):
    """Rows that were in the journal are gone. Data: `seal` (its path), `known` and `found` (numbers of transactions;
    None where the database is gone or another journal)."""

    retryable = False


class NewerSchemaError(JournalError):
    """A journal, or a folder of embedded platforms, made by a newer version. Data: `found`, `known`."""

    retryable = False


class EmbeddedPlatformError(IvcapFlowsError):
    """The embedded platform could not be started or reached. Data: `directory`."""

    retryable = True
