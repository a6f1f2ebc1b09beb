"""Codex's words for what went wrong, as the errors that they are: pure. Facts are from 0.169.0 and 0.171.0."""

import json
import re
from typing import Any

from runners.errors import (
    AuthExpiredError,
    ContextOverflowError,
    InvalidRequestError,
    ModelNotFoundError,
    NetworkError,
    NotAuthenticatedError,
    OverloadedError,
    QuotaExhaustedError,
    RateLimitedError,
    RunnerError,
    VendorError,
    of_status,
)
from runners.translator import Event

LOGIN_HINT = "codex login"
OWN_KEY_HINT = "the key that `api_key_env` names is not accepted"
_OWN_PATH_HINT = "the server at `base_url` must serve /responses; one that does not takes an entry of the kind copilot"

POLICIES = ("cyberPolicy", "bioPolicy", "misalignmentPolicyViolation", "inferenceHookDenied")
"""The vendor does not let the model answer this."""

_KINDS: dict[str, type[RunnerError]] = {
    "contextWindowExceeded": ContextOverflowError,
    "sessionBudgetExceeded": QuotaExhaustedError,
    "usageLimitExceeded": QuotaExhaustedError,
    "rateLimitExceeded": RateLimitedError,
    "flexUnavailable": OverloadedError,
    "policyCapacityUnavailable": OverloadedError,
    "serverOverloaded": OverloadedError,
    "modelNotFound": ModelNotFoundError,
    "internalServerError": VendorError,
    "unauthorized": AuthExpiredError,
    "badRequest": InvalidRequestError,
}
_BROKEN = re.compile(
    "error sending request|transport error|stream closed before|idle timeout|connection (failed|refused|reset|closed)|"
    "discovery failed",  # of where a plan's requests go
    re.IGNORECASE,
)
_AGAIN_IN = re.compile(r"try again in (\d+(?:\.\d+)?) ?(ms|s|seconds?)", re.IGNORECASE)


def not_logged_in(home: str) -> NotAuthenticatedError:
    """The error for a CLI without a login in its user's `home`, which `CODEX_HOME` may have moved."""
    return NotAuthenticatedError(f"codex is not logged in: there is no login in {home}", hint=LOGIN_HINT)


def failure(error: Event, *, is_own_server: bool) -> RunnerError:
    """The error that a turn ended with, or that the CLI tries again behind: that stands in `additionalDetails`."""
    said = str(error.get("additionalDetails") or error["message"])
    message, is_refusal = _sentence(said)
    info = error.get("codexErrorInfo")
    details = next(iter(info.values()), None) if isinstance(info, dict) else None
    status = details.get("httpStatusCode") if isinstance(details, dict) else None
    if isinstance(info, str) and info in _KINDS:
        kind = _KINDS[info]
    elif status is not None:
        kind = of_status(status)
    elif is_refusal:
        kind = InvalidRequestError
    elif said.startswith("rate limit exceeded"):
        kind = RateLimitedError
    else:
        # What it tries again behind it calls a stream that was disconnected, whatever it was.
        is_broken = isinstance(info, dict) and "responseStreamDisconnected" not in info
        kind = NetworkError if is_broken or _BROKEN.search(said) else VendorError
    return kind(message, hint=_hint(kind, status, is_own_server=is_own_server), retry_after_s=_again_in(said))


def _sentence(said: str) -> tuple[str, bool]:
    """What an error says, and whether it is what a server answered to a request that it does not take (400)."""
    try:
        body: Any = json.loads(said)
    except (ValueError, RecursionError):
        return said, False
    inner = body.get("error", body) if isinstance(body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else inner
    return (message if isinstance(message, str) else said), isinstance(body, dict)


def _hint(kind: type[RunnerError], status: int | None, *, is_own_server: bool) -> str | None:
    if kind is AuthExpiredError:
        return OWN_KEY_HINT if is_own_server else LOGIN_HINT
    return _OWN_PATH_HINT if is_own_server and status == 404 else None


def _again_in(said: str) -> float | None:
    found = _AGAIN_IN.search(said)
    return float(found[1]) / (1000 if found[2].lower() == "ms" else 1) if found else None
