"""How gemini's ACP differs from the letter of the protocol: pure. Facts are from 0.52.0 and 0.61.0."""

import json
import re
from typing import Any

from runners.errors import (
    AuthExpiredError,
    ContextOverflowError,
    ModelNotFoundError,
    NotAuthenticatedError,
    RateLimitedError,
    RunnerError,
)
from runners.messages import Usage
from runners.providers.acp.dialect import Dialect
from runners.providers.acp.failures import AUTH_REQUIRED
from runners.providers.acp.failures import failure as any_failure
from runners.translator import Event

_BAD_KEY = re.compile("API key (not valid|expired|was reported as leaked)|API_KEY_INVALID", re.IGNORECASE)
_NO_SUCH_MODEL = re.compile("models/[^ ]+ is not (found|supported)", re.IGNORECASE)
_TOO_LONG = re.compile("input token count.* exceeds the maximum", re.IGNORECASE)
_COME_BACK = re.compile(r"retry in ([\d.]+)\s*s", re.IGNORECASE)
_NO_HEADING = "****\n"
LOGIN_HINT = "run `gemini` once and log in, or name GEMINI_API_KEY in the entry's `env` or `env_pass`"
KEY_HINT = (
    "its key is not accepted: make another at https://aistudio.google.com/apikey, "
    "and name it as GEMINI_API_KEY in the entry's `env` or `env_pass`"
)


def failure(code: int, message: str, data: Any) -> RunnerError:
    """The error that an answer means. Its message may be the API's whole JSON."""
    code, message = _of_the_api(code, message)
    if code == AUTH_REQUIRED:
        return NotAuthenticatedError(message, hint=LOGIN_HINT)
    if _BAD_KEY.search(message):
        return AuthExpiredError(message, hint=KEY_HINT)
    if _NO_SUCH_MODEL.search(message):
        return ModelNotFoundError(message)
    if _TOO_LONG.search(message):
        return ContextOverflowError(message)
    if (wait := _COME_BACK.search(message)) is not None:
        return RateLimitedError(message, retry_after_s=float(wait[1]))
    return any_failure(code, message, data)


def _of_the_api(code: int, message: str) -> tuple[int, str]:
    try:
        told = json.loads(message)["error"]
        return int(told["code"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        return code, message


def usage(result: Event) -> Usage | None:
    """What a turn cost: the tokens of thoughts are in none of its counts."""
    quota = (result.get("_meta") or {}).get("quota") or {}
    counts = quota.get("token_count") or {}
    if not quota.get("model_usage"):
        return None
    return Usage(input_tokens=counts["input_tokens"], output_tokens=counts["output_tokens"])


def meant(event: Event) -> Event:
    """An event as the protocol would have it.

    Each piece of a thought is told as if it had a heading, most of them an empty one. A good end without a call of a
    model is that of an answer that broke off, or whose stream held an error.
    """
    if event.get("type") == "agent_thought_chunk":
        content = event["content"]
        return event | {"content": content | {"text": content["text"].replace(_NO_HEADING, "")}}
    if event.get("type") != "result" or event.get("stopReason") != "end_turn":
        return event
    if ((event.get("_meta") or {}).get("quota") or {}).get("model_usage") != []:
        return event
    return {"type": "failed", "code": 502, "message": "gemini ended its turn without the end of an answer"}


DIALECT = Dialect(failure=failure, meant=meant, usage=usage, system_at_start=True, hears_eof=False)
"""Its system prompt is a file that the process is started with, and reads again for all its sessions whenever one of
them begins: they must share it. Its input's end does not end it while it answers."""
