"""How opencode's ACP differs from the letter of the protocol: pure. Facts are from 1.18.3 and 1.18.33."""

import re
import time
from typing import Any

from runners.errors import NetworkError, NotAuthenticatedError, RateLimitedError, RunnerError
from runners.providers.acp.dialect import Dialect
from runners.providers.acp.failures import failure as any_failure
from runners.translator import Event

_OWN_WAIT_S = 5.0
"""Longer than the CLI by itself waits before it tries again for the first time: then it was its API that said so."""
_NO_CONNECTION = re.compile("cannot connect to api|socket connection|unable to connect", re.IGNORECASE)


def not_logged_in() -> RunnerError:
    """What it means that there is no model at all."""
    hint = "run `opencode auth login`, or name an API in the entry's `provider`"
    return NotAuthenticatedError("opencode is logged into no provider of models", hint=hint)


def failure(code: int, message: str, data: Any) -> RunnerError:
    """The error that an answer means, or that the plugin has told of."""
    message = message.removeprefix("Internal error: ")
    details = data if isinstance(data, dict) else {}
    if _NO_CONNECTION.search(message):
        return NetworkError(message)
    if "unknown/unknown" in message:
        return not_logged_in()
    error = any_failure(code, message, details)
    wait_s = details.get("wait_s")
    if isinstance(wait_s, float) and wait_s > _OWN_WAIT_S and error.kind in ("vendor_error", "rate_limited"):
        return RateLimitedError(message, retry_after_s=wait_s)
    return error


def meant(result: Event, told: Event) -> Event:
    """The end of a turn with what the plugin has told of it: a failure is no good end, a cut answer has its reason."""
    failed = told.get("failure")
    if isinstance(failed, dict):
        wait = {"wait_s": failed["next"] / 1000 - time.time()} if failed.get("next") else {}
        data = {"statusCode": failed.get("statusCode")} | wait
        return {"type": "failed", "code": 0, "message": str(failed.get("message") or "opencode failed"), "data": data}
    if told.get("finish") == "unknown":
        return {"type": "failed", "code": 0, "message": "opencode ended its turn without the end of an answer"}
    if result.get("stopReason") == "end_turn" and told.get("finish") == "length":
        return result | {"stopReason": "max_tokens"}
    return result


DIALECT = Dialect(failure=failure)
