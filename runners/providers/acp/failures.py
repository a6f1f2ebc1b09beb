"""What an agent answers when it fails, as the errors that it means: pure.

The protocol has one code of its own, for a login that is missing. For all else agents hand on what their vendor's API
said: as the code (gemini), in `data`, or in words alone.
"""

import re
from typing import Any

from runners.errors import (
    BY_STATUS,
    AuthExpiredError,
    ContextOverflowError,
    InvalidRequestError,
    ModelNotFoundError,
    NetworkError,
    NotAuthenticatedError,
    OverloadedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitedError,
    RunnerError,
    VendorError,
)
from runners.wire.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND

AUTH_REQUIRED = -32000
_BY_WORDS: list[tuple[str, type[RunnerError]]] = [
    ("context.length|context window|too many tokens|(prompt|input) is too long|maximum context", ContextOverflowError),
    ("insufficient.quota|exceeded your (current )?quota|credit balance|billing", QuotaExhaustedError),
    ("rate.limit|too many requests", RateLimitedError),
    ("overloaded|over capacity", OverloadedError),
    ("(invalid|incorrect|expired) (api.key|token|x-api-key)|unauthori[sz]ed|/login|log in again", AuthExpiredError),
    (r"\bmodel\b.*\b(not found|not available|does not exist|unknown)\b", ModelNotFoundError),
    (
        "connection (error|reset|refused|lost|was closed)|(cannot|unable to) connect|fetch failed|socket hang up|"
        "econn|enotfound|etimedout|terminated",
        NetworkError,
    ),
]
_STATUS_IN_WORDS = re.compile(r"(?:^|API Error:|HTTP|status(?: code)?:?|\[)\s*\(?([45]\d\d)\b", re.IGNORECASE)
_MESSAGE_CHARACTERS = 2000


def failure(code: int, message: str, data: Any) -> RunnerError:
    """The error for an answer with this code."""
    details = data if isinstance(data, dict) else {}
    said = str(details.get("details") or details.get("message") or (data if isinstance(data, str) else ""))
    whole = message if not said or said in message else f"{message}: {said}"
    whole = whole[:_MESSAGE_CHARACTERS] or f"the agent failed with code {code}"
    if code == AUTH_REQUIRED:
        return NotAuthenticatedError(whole)
    if code in (METHOD_NOT_FOUND, INVALID_REQUEST):
        return ProtocolError(f"the agent refused: {whole}")
    status = _status(code, details, whole)
    # A 400 may mean anything: its words say more.
    by_status = BY_STATUS.get(status)
    by_words = next((kind for words, kind in _BY_WORDS if re.search(words, whole, re.IGNORECASE)), None)
    if by_status is not None:
        return (by_words if by_words in (QuotaExhaustedError, ContextOverflowError) else by_status)(whole)
    if by_words is not None:
        return by_words(whole)
    if code == INVALID_PARAMS or 400 <= status < 500:
        return InvalidRequestError(whole)
    return VendorError(whole)


def _status(code: int, details: dict[str, Any], said: str) -> int:
    """The HTTP status that an API answered with, 0 where nobody says it."""
    for told in (code, details.get("statusCode"), details.get("status"), details.get("code")):
        if isinstance(told, int) and 400 <= told < 600:
            return told
    found = _STATUS_IN_WORDS.search(said)
    return int(found[1]) if found else 0
