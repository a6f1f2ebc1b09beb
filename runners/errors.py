"""The RunnerError tree: one class for each kind of failure, so that callers branch on types, never on text.

Owns the kinds, which of them are worth a retry, and their form on the wire. Knows no vendor.
"""

from typing import Any, ClassVar, Self


class RunnerError(Exception):
    """A chat, a probe or a session failed.

    `message` is one sentence for a person, `hint` the command or act that mends it. `retry_after_s` is the
    vendor's own word on when to come back. `stderr_tail` is what the CLI last wrote to stderr: it may hold
    secrets, so it goes to the owner of the request and never into a log. Fields that nobody stated are None.
    """

    kind: ClassVar[str] = "vendor_error"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        runner: str | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        hint: str | None = None,
        exit_code: int | None = None,
        stderr_tail: str | None = None,
        requested_tokens: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.runner = runner
        if retryable is not None:
            self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.hint = hint
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        self.requested_tokens = requested_tokens
        self.max_tokens = max_tokens

    def __copy__(self) -> Self:
        # The inherited way calls the class with the message alone, and some kinds need more.
        twin = type(self).__new__(type(self), *self.args)
        vars(twin).update(vars(self))
        return twin

    def to_dict(self) -> dict[str, Any]:
        """The error as it stands in the `data` of a JSON-RPC error; what is unknown is left out."""
        fields = {"kind": self.kind, "message": self.message, "retryable": self.retryable}
        optional = {name: value for name, value in vars(self).items() if value is not None and name not in fields}
        return fields | optional


class NotInstalledError(RunnerError):
    """The vendor's CLI was not found, or cannot be executed."""

    kind = "not_installed"


class NotAuthenticatedError(RunnerError):
    """The CLI is not logged in."""

    kind = "not_authenticated"


class AuthExpiredError(RunnerError):
    """The CLI has a login, and the vendor no longer accepts it."""

    kind = "auth_expired"


class PermissionDeniedError(RunnerError):
    """The login is good, and may not do this."""

    kind = "permission"


class RateLimitedError(RunnerError):
    """Too many requests for now; `retry_after_s` when the vendor said for how long."""

    kind = "rate_limited"
    retryable = True


class QuotaExhaustedError(RunnerError):
    """The plan or the credit is used up; waiting a moment does not help."""

    kind = "quota_exhausted"


class OverloadedError(RunnerError):
    """The vendor has no capacity at the moment."""

    kind = "overloaded"
    retryable = True


class VendorError(RunnerError):
    """The vendor's service failed."""

    kind = "vendor_error"
    retryable = True


class NetworkError(RunnerError):
    """The CLI could not reach its vendor, or the connection broke."""

    kind = "network"
    retryable = True


class ContextOverflowError(RunnerError):
    """The conversation is longer than the model's window: `requested_tokens` against `max_tokens`."""

    kind = "context_overflow"


class ModelNotFoundError(RunnerError):
    """No runner, or no vendor, knows the model."""

    kind = "model_not_found"


class InvalidRequestError(RunnerError):
    """The request makes no sense, to us or to the vendor."""

    kind = "invalid_request"


class UnsupportedError(RunnerError):
    """The runner cannot do what the request asks for, and says so."""

    kind = "unsupported"


class DeadlineExceededError(RunnerError):
    """A wait reached its deadline: `deadline` is its name in runners.yaml, `limit_s` its length in seconds."""

    kind = "timeout"
    retryable = True

    def __init__(self, message: str, *, deadline: str, limit_s: float, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.deadline = deadline
        self.limit_s = limit_s


class ProcessExitedError(RunnerError):
    """The CLI ended before it had answered: see `exit_code` and `stderr_tail`."""

    kind = "process_exited"
    retryable = True


class SpawnFailedError(ProcessExitedError):
    """The system started no process: it is out of memory or descriptors. That says nothing of the CLI."""


class ProtocolError(RunnerError):
    """The CLI, or a runner of ours, broke the agreed order of events."""

    kind = "protocol"


class LineTooLongError(RunnerError):
    """A line passed the cap, complete or not."""

    kind = "line_too_long"


class RequestCancelledError(RunnerError):
    """The client cancelled its request, or the daemon ends. Inside a program that stays `asyncio.CancelledError`."""

    kind = "cancelled"


class QueueFullError(RunnerError):
    """The runner has as many requests waiting as it may have."""

    kind = "queue_full"
    retryable = True


class ConfigError(RunnerError):
    """runners.yaml is wrong: the message names the key and the line."""

    kind = "config"


TOLD_BY_CLIS: dict[str, type[RunnerError]] = {
    error.kind: error
    for error in (
        *(NotAuthenticatedError, AuthExpiredError, PermissionDeniedError, RateLimitedError, QuotaExhaustedError),
        *(OverloadedError, VendorError, NetworkError, ContextOverflowError, ModelNotFoundError),
        *(InvalidRequestError, UnsupportedError),
    )
}
"""By kind, what the words or exit codes of a CLI may mean where an entry of runners.yaml says what they do."""

BY_STATUS: dict[int, type[RunnerError]] = {
    401: AuthExpiredError,
    402: QuotaExhaustedError,
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    413: ContextOverflowError,
    429: RateLimitedError,
    503: OverloadedError,
    529: OverloadedError,
}
"""What an HTTP status of a model's API means, where nothing says it better."""


def of_status(status: int) -> type[RunnerError]:
    """The same for every status from 400 on."""
    return BY_STATUS.get(status, InvalidRequestError if status < 500 else VendorError)
