"""How opencode's ACP differs from the letter of the protocol: pure. Facts are from 1.18.3 and 1.18.33."""

import re
import time
from collections.abc import Iterable
from typing import Any

from runners.errors import NotAuthenticatedError, RateLimitedError, RunnerError
from runners.providers.acp.dialect import Dialect
from runners.providers.acp.failures import failure as any_failure
from runners.translator import Event

_OWN_WAIT_S = 2.5
"""As long as the CLI by itself waits, at most, before it tries again for the first time: more is what its API said."""
_TOO_MUCH = re.compile("too many|slow down|rate increased", re.IGNORECASE)


def not_logged_in() -> RunnerError:
    """What it means that there is no model at all."""
    hint = "run `opencode auth login`, or name an API in the entry's `provider`"
    return NotAuthenticatedError("opencode is logged into no provider of models", hint=hint)


def login_hint(named: Iterable[str]) -> str:
    """What mends a login that an API does not accept. Those `named` have theirs in the entry's `provider`."""
    apis = ", ".join(named)
    login = "run `opencode auth login`"
    return f"for {apis}, mend the key that the entry's `provider` names; for any other API {login}" if apis else login


def failure(code: int, message: str, data: Any) -> RunnerError:
    """The error that an answer means, or that the plugin has told of."""
    message = message.removeprefix("Internal error: ")
    details = data if isinstance(data, dict) else {}
    if "unknown/unknown" in message:
        return not_logged_in()
    error = any_failure(code, message, details)
    wait_s = details.get("wait_s")
    if not isinstance(wait_s, float) or not error.retryable:
        return error
    # It is one of those that the CLI would try again, so what there is too much of is no part of the request.
    is_told_when = wait_s > _OWN_WAIT_S
    if error.kind == "vendor_error" and not details.get("statusCode") and (is_told_when or _TOO_MUCH.search(message)):
        error = RateLimitedError(message)
    error.retry_after_s = wait_s if is_told_when else None
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
