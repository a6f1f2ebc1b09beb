"""Copilot's words for what went wrong, as the errors that they are: pure. Facts are from 1.0.102."""

import json
import re

from runners.errors import (
    AuthExpiredError,
    ContextOverflowError,
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
from runners.translator import Event

LOGIN_HINT = "copilot login"
NO_LOGIN = (
    *("No GitHub OAuth token", "No authentication information", "Not authenticated"),
    "not created with authentication info",
)
_CONTEXT_WORDS = ("context_length_exceeded", "maximum context length", "prompt budget", "context window")
_TOKENS = re.compile(r"maximum context length is (\d+) tokens.*?(\d+) tokens", re.DOTALL)


def not_logged_in() -> NotAuthenticatedError:
    """The error for a CLI without a login."""
    return NotAuthenticatedError("copilot is not logged in", hint=LOGIN_HINT)


def failure(status: int | None, said: str, details: Event) -> RunnerError:  # noqa: PLR0911 the vendor's table
    """The vendor's table of errors, from `model.call_failure`, or from `session.error` where there was no call."""
    text, code = _message(said), f"{details.get('errorCode')} {details.get('errorType')}"
    message = text or f"copilot's request failed: HTTP {status} ({code})"
    if any(words in said for words in NO_LOGIN):
        return not_logged_in()
    if any(words in said or words in code for words in _CONTEXT_WORDS) or status == 413:
        tokens = _TOKENS.search(text)
        limit, requested = (int(tokens[1]), int(tokens[2])) if tokens else (None, None)
        return ContextOverflowError(message, requested_tokens=requested, max_tokens=limit)
    if "insufficient_quota" in code or "insufficient_quota" in said or status == 402:
        return QuotaExhaustedError(message)
    if status == 401:
        own_api = "the key that `provider.api_key_env` names is not accepted"
        return AuthExpiredError(message, hint=own_api if details.get("isByok") else LOGIN_HINT)
    if status == 403:
        return PermissionDeniedError(message)
    if status == 404:
        return ModelNotFoundError(message)
    if status == 429:
        return RateLimitedError(message)
    if status in (503, 529) or "overloaded" in code:
        return OverloadedError(message)
    if status is not None and status < 500:
        return InvalidRequestError(message)
    if status is None and details.get("failureKind") == "transport":
        return NetworkError(message)
    return VendorError(message)


def _message(said: str) -> str:
    """The sentence in an error: the CLI hands on its vendor's JSON object, or a JSON string, as text."""
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        return said
    if isinstance(value, dict):
        inner = value.get("error")
        value = inner.get("message") if isinstance(inner, dict) else value.get("message")
    return value if isinstance(value, str) else said
