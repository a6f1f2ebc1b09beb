"""What gemini and opencode, and the APIs behind them, say when they fail: as the errors that it means."""

from typing import Any

import pytest

from runners.providers.opencode.dialect import failure, meant
from runners.translator import Event


def of_opencode(**told: Any) -> Any:
    """The error of a turn of which the plugin has told this."""
    event: Event = meant({"type": "result", "stopReason": "end_turn"}, {"failure": told})
    return failure(event["code"], event["message"], event["data"])


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"message": "too many", "next": 1}, "rate_limited"),
        ({"message": "Too Many Requests", "next": 1}, "rate_limited"),
        ({"message": "busy", "next": 1, "statusCode": 429}, "rate_limited"),
        ({"message": "You exceeded your current quota", "next": 1, "statusCode": 429}, "quota_exhausted"),
        ({"message": "too many", "next": 1, "statusCode": 500}, "vendor_error"),
        ({"message": "too many images", "statusCode": 400}, "invalid_request"),
        ({"message": "too many"}, "vendor_error"),
        ({"message": "oops", "next": 1, "statusCode": 503}, "overloaded"),
        ({"message": "oops", "next": 1}, "vendor_error"),
        ({"message": "Connection reset by server", "next": 1}, "network"),
        ({"message": "Cannot connect to API: The socket connection was closed unexpectedly.", "next": 1}, "network"),
        ({"message": "Cannot connect to API: Unable to connect. Is the computer able to access the url?"}, "network"),
    ],
)
def test_what_opencode_would_try_again_is_told_by_its_status_and_else_by_its_words(told: Event, kind: str) -> None:
    error = of_opencode(**told)
    assert (error.kind, error.retry_after_s) == (kind, None)


@pytest.mark.parametrize(("status", "kind"), [(None, "rate_limited"), (429, "rate_limited"), (503, "overloaded")])
def test_when_an_api_wants_opencode_to_come_back_is_told(status: int | None, kind: str) -> None:
    error = of_opencode(message="oops", statusCode=status, next=4_102_444_800_000)
    assert error.kind == kind
    assert error.retry_after_s > 1_000_000
