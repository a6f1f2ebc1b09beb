"""Failures of the real claude and of its API, each with its kind, in bounded time, and without requests of its own."""

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from runners.testing.apis.messages_api import AnyReply, Reply, error, text
from tests.conftest import NEWEST_CLAUDE
from tests.live.claude_body import our_messages, said
from tests.live.claude_lab import NO_LOGIN, PLAN
from tests.live.lab import Entries, Json, Lab
from tests.world import user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), NEWEST_CLAUDE]


@pytest.fixture(scope="module")
def entries() -> Entries:
    return {
        "claude": {},
        "plan": {"env": PLAN},
        # Whose vendor says when to come back is not asked before that.
        "limited": {},
        "used_up": {"env": PLAN},
        "no_login": {"env": NO_LOGIN},
        # The first is the shorter: before the first content it is always the one that ends.
        "impatient": {"timeouts": {"first_chunk_s": 2, "silence_s": 2.5}},
    }


@dataclass(frozen=True)
class Case:
    """What the API says, and the error that a client gets for it. `requests`: the most that the API may see."""

    reply: AnyReply
    kind: str
    requests: int = 1
    has_hint: bool = False
    model: str = "claude"
    says: Json = field(default_factory=dict)


CASES = {
    # Asked twice: it may renew its login in between, and only its last word has the vendor's reason.
    "401": Case(
        error(401, "authentication_error", "invalid x-api-key"),
        "auth_expired",
        2,
        has_hint=True,
        says={"message": "Invalid API key · Fix external API key"},
    ),
    "401 of a plan": Case(
        error(401, "authentication_error", "OAuth token has expired"), "auth_expired", 2, has_hint=True, model="plan"
    ),
    "403": Case(error(403, "permission_error", "not allowed"), "permission"),
    "404": Case(error(404, "not_found_error", "model: nonsense"), "model_not_found", 2, model="claude:nonsense"),
    "429 of a plan": Case(error(429, "rate_limit_error", "slow down"), "rate_limited", model="plan"),
    "500": Case(error(500, "api_error", "Internal server error"), "vendor_error", says={"retryable": True}),
    "529": Case(error(529, "overloaded_error", "Overloaded"), "overloaded", says={"retryable": True}),
    "too long": Case(
        error(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), "context_overflow", 2
    ),
    "no credit": Case(
        error(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        "quota_exhausted",
        2,
        has_hint=True,
    ),
    "another 400": Case(error(400, "invalid_request_error", "temperature: no"), "invalid_request", 3),
    "no answer": Case(text("x").broken("drop"), "network", says={"retryable": True}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_an_error_of_the_api_is_an_error_of_its_kind(lab: Lab, case: Case) -> None:
    lab.api.script(*[case.reply] * 10)
    answer = await lab.chat(user("hi"), runner=case.model)
    failure = answer.error
    assert failure["kind"] == case.kind
    assert failure | case.says == failure
    assert failure["message"]
    assert failure["runner"] == case.model.partition(":")[0]
    assert ("hint" in failure) == case.has_hint
    assert {chunk["type"] for chunk in answer.chunks} <= {"retrying"}
    await lab.no_cli_is_left()
    assert 1 <= len(lab.api.requests) <= case.requests


async def test_a_conversation_that_is_too_long_is_refused_and_never_summarised(lab: Lab) -> None:
    conversation: list[Json] = []
    for number in range(6):
        conversation += [*user(f"question {number}"), {"role": "assistant", "content": f"answer {number}"}]
    conversation += user("and now?")
    lab.api.script(*[CASES["too long"].reply] * 10)
    assert (await lab.chat(conversation)).error["kind"] == "context_overflow"
    await lab.no_cli_is_left()
    assert 1 <= len(lab.api.requests) <= CASES["too long"].requests
    for received in lab.api.requests:
        assert our_messages(received.body) == [said(message["role"], message["content"]) for message in conversation]


async def test_a_rate_limit_says_when_to_come_back(lab: Lab) -> None:
    lab.api.script(*[error(429, "rate_limit_error", "slow down", {"retry-after": "7"})] * 10)
    failure = (await lab.chat(user("hi"), runner="limited")).error
    assert (failure["kind"], failure["retryable"]) == ("rate_limited", True)
    assert 7 <= failure["retry_after_s"] <= 9  # new adds up to a quarter
    await lab.no_cli_is_left()
    assert len(lab.api.requests) == 1


async def test_a_used_up_plan_says_when_it_begins_anew(lab: Lab) -> None:
    resets_at = int(time.time()) + 3600
    unified = {
        "status": "rejected",
        "reset": str(resets_at),
        "representative-claim": "five_hour",
        "overage-status": "rejected",
        "overage-disabled-reason": "org_level_disabled",
        "5h-status": "rejected",
        "5h-reset": str(resets_at),
        "5h-utilization": "1.0",
    }
    headers = {f"anthropic-ratelimit-unified-{name}": value for name, value in unified.items()}
    lab.api.script(*[error(429, "rate_limit_error", "limit reached", headers)] * 10)
    failure = (await lab.chat(user("hi"), runner="used_up")).error
    assert failure["kind"] == "quota_exhausted"
    assert failure["retry_after_s"] == pytest.approx(resets_at - time.time(), abs=60)
    await lab.no_cli_is_left()
    assert len(lab.api.requests) == 1


async def test_without_a_login_the_error_says_how_to_log_in_and_nothing_is_asked(lab: Lab) -> None:
    failure = (await lab.chat(user("hi"), runner="no_login")).error
    assert failure["kind"] == "not_authenticated"
    assert "claude auth login" in failure["hint"]
    assert lab.api.requests == []


async def partly_answered(lab: Lab, reply: Reply, runner: str = "claude") -> Json:
    """The error of an answer that breaks behind "Hel" and "lo", once both are at the client."""
    seen, failure = await lab.partly_answered(reply, runner=runner)
    assert [chunk["chunk"] for chunk in seen if chunk["type"] == "text"] == ["Hel", "lo"]
    return failure


def hello() -> Reply:
    return text("Hel", "lo", " world", pause=asyncio.Event(), pause_after=2)


async def test_a_connection_dropped_mid_stream_ends_the_answer_after_the_text_that_came(lab: Lab) -> None:
    assert (await partly_answered(lab, hello().broken("drop", after=2)))["kind"] == "network"


async def test_a_response_cut_short_mid_stream_ends_the_answer_after_the_text_that_came(lab: Lab) -> None:
    assert (await partly_answered(lab, hello().broken("cut", after=2)))["kind"] == "network"


async def test_an_error_event_mid_stream_ends_the_answer_after_the_text_that_came(lab: Lab) -> None:
    assert (await partly_answered(lab, hello().broken("error", after=2)))["kind"] == "overloaded"


async def test_an_answer_that_stalls_ends_at_silence_s(lab: Lab) -> None:
    failure = await partly_answered(lab, hello().broken("stall", after=2), runner="impatient")
    assert (failure["kind"], failure["deadline"], failure["limit_s"]) == ("timeout", "silence_s", 2.5)
    assert "silence_s" in failure["message"]
    assert lab.api.requests[0].gone.is_set()


async def test_an_answer_that_never_begins_ends_at_first_chunk_s(lab: Lab) -> None:
    lab.api.script(text("never").broken("stall"))
    failure = (await lab.chat(user("hi"), runner="impatient")).error
    assert (failure["kind"], failure["deadline"], failure["limit_s"]) == ("timeout", "first_chunk_s", 2)
    assert "first_chunk_s" in failure["message"]
    await lab.no_cli_is_left()
    assert len(lab.api.requests) == 1


async def test_a_failed_chat_leaves_the_next_one_as_it_should_be(lab: Lab) -> None:
    lab.api.script(error(403, "permission_error", "not allowed"))
    assert (await lab.chat(user("first"))).error["kind"] == "permission"
    assert (await lab.chat(user("second"))).result["content"] == "ok"
    assert our_messages(lab.api.requests[-1].body) == [said("user", "second")]


async def test_a_login_that_a_chat_proved_bad_stays_so_until_a_chat_is_answered(lab: Lab) -> None:
    refused = error(401, "authentication_error", "invalid x-api-key")
    lab.api.script(refused, refused)
    await lab.chat(user("first"))
    # The CLI itself goes on to say that it is logged in.
    [bad] = (await lab.wire.call("health", runner="claude"))["result"]["runners"]
    assert (bad["state"], bad["reason"], bad["authenticated"]) == ("unavailable", "auth_expired", False)
    assert (await lab.chat(user("second"))).result["content"] == "ok"
    [good] = (await lab.wire.call("health", runner="claude"))["result"]["runners"]
    assert (good["state"], good["reason"], good["authenticated"]) == ("ready", None, True)
