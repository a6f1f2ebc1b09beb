"""Claude Code's words for what went wrong, as the errors that they are: pure. Facts are from 2.1.197 and 2.1.329."""

from runners.errors import (
    AuthExpiredError,
    InvalidRequestError,
    ModelNotFoundError,
    NetworkError,
    NotAuthenticatedError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitedError,
    RunnerError,
    VendorError,
)

_LOGIN_HINT = "claude auth login"


def not_logged_in() -> NotAuthenticatedError:
    """The error for a CLI without a login."""
    return NotAuthenticatedError("claude is not logged in", hint=_LOGIN_HINT)


def failure(error: str | None, status: int | None, text: str) -> RunnerError:  # noqa: PLR0911 the vendor's table
    """The vendor's table of errors. `error` alone is not enough: a plain 400 and an idle stream are `unknown`."""
    answer = "no answer" if status is None else f"HTTP {status}"
    message = text or f"claude's request to its vendor failed: {answer} ({error})"
    if error == "authentication_failed" and status is None:
        return not_logged_in()
    if status == 401:
        return AuthExpiredError(message, hint=_LOGIN_HINT)
    if status == 403:
        return PermissionDeniedError(message)
    if error == "billing_error":
        return QuotaExhaustedError(message, hint="add credit to the account, or log in with a plan")
    if error == "model_not_found" or status == 404:
        return ModelNotFoundError(message)
    if status == 429:
        return RateLimitedError(message)
    if status == 529 or error == "overloaded" or (status is None and "overloaded" in message.lower()):
        return OverloadedError(message)
    if status is not None:
        return InvalidRequestError(message) if status < 500 else VendorError(message)
    # Nobody answered: refused, dropped, cut short, or the CLI's own time-outs.
    return NetworkError(message) if error in ("server_error", "unknown") else VendorError(message)
