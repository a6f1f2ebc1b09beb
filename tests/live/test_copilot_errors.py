"""Failures of the real copilot and of its API, each with its kind, inside a deadline of ours, and never doubled."""

import asyncio
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from runners.testing.apis.completions_api import STREAM_ERROR, AnyReply, Reply, error, text
from tests.live.copilot_lab import NO_LOGIN
from tests.live.lab import Entries, Json, Lab, joined
from tests.world import Wire, until, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

FIRST_CHUNK_S = 6.0
SILENCE_S = 2.0
SLACK_S = 10.0  # for a busy machine; the CLI's own time is up to 60 s
"""What the start of the CLI and its end may take beside a deadline, on a busy machine."""


@pytest.fixture(scope="module")
def entries() -> Iterator[Entries]:
    with socket.socket() as closed:
        # Bound and not listening: nobody else takes the port, and a connection to it is refused.
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        in_time = {"first_chunk_s": FIRST_CHUNK_S}
        yield {
            "copilot": {"timeouts": in_time, "max_running": 20},
            "impatient": {"timeouts": {"first_chunk_s": SILENCE_S, "silence_s": SILENCE_S + 0.5}},
            "refused": {"timeouts": in_time, "provider": {"base_url": nowhere}},
            "no_key": {"provider": {"api_key_env": "NOT_THERE"}},
            "no_login": NO_LOGIN,
        }


@pytest.fixture
def lab(lab_of_copilot: Lab) -> Lab:
    return lab_of_copilot


@dataclass(frozen=True)
class Case:
    """What the API says, and the error that a client gets for it. `is_retried`: the CLI tries again before that."""

    reply: AnyReply
    kind: str
    is_retried: bool = False
    has_hint: bool = False
    says: Json = field(default_factory=dict)


TOO_LONG = "This model's maximum context length is 128000 tokens. However, your messages resulted in 150000 tokens."
CASES = {
    "401": Case(
        error(401, "bad key", "authentication_error", code="invalid_api_key"),
        "auth_expired",
        is_retried=True,
        has_hint=True,
        says={"message": "bad key", "retryable": False},
    ),
    "403": Case(error(403, "not allowed", "permission_error"), "permission", says={"message": "not allowed"}),
    "402": Case(error(402, "pay first"), "quota_exhausted", says={"retryable": False}),
    "404": Case(error(404, "no such model", code="model_not_found"), "model_not_found"),
    "400": Case(error(400, "temperature: no"), "invalid_request", says={"message": "temperature: no"}),
    "context": Case(
        error(400, TOO_LONG, code="context_length_exceeded"),
        "context_overflow",
        says={"requested_tokens": 150_000, "max_tokens": 128_000},
    ),
    "413": Case(error(413, "Request too large", code="request_too_large"), "context_overflow"),
    "429": Case(
        error(429, "slow down", "rate_limit_error", code="rate_limited"),
        "rate_limited",
        is_retried=True,
        says={"message": "slow down", "retryable": True},
    ),
    "429 for a second": Case(
        error(429, "slow down", code="rate_limited", headers={"retry-after": "1"}), "rate_limited", is_retried=True
    ),
    "429 for ten minutes": Case(
        error(429, "slow down", code="rate_limited", headers={"retry-after": "600"}), "rate_limited", is_retried=True
    ),
    "no quota": Case(
        error(429, "You exceeded your current quota", "insufficient_quota", code="insufficient_quota"),
        "quota_exhausted",
        says={"retryable": False},
    ),
    "500": Case(error(500, "oops", "server_error"), "vendor_error", is_retried=True, says={"retryable": True}),
    "503": Case(error(503, "no capacity", "server_error"), "overloaded", is_retried=True, says={"retryable": True}),
    "dropped": Case(text("x").broken("drop"), "network", is_retried=True, says={"retryable": True}),
}


async def timed(lab: Lab, runner: str, limit_s: float) -> tuple[list[Json], Json]:
    """The chunks and the error of a chat that fails within the time that a deadline of it allows."""
    began = time.monotonic()
    answer = await lab.chat(user("hi"), runner=runner)
    assert time.monotonic() - began < limit_s + SLACK_S
    assert answer.error["runner"] == runner
    assert answer.error["message"]
    return answer.chunks, answer.error


async def test_an_error_of_the_api_is_an_error_of_its_kind_inside_the_deadline(lab: Lab) -> None:
    # All at once: those that the CLI tries again take the whole time.
    lab.api.answer = lambda body: CASES[body["messages"][-1]["content"]].reply
    began = time.monotonic()
    chats = [await lab.begin(user(name)) for name in CASES]
    answers = dict(zip(CASES, await lab.rest_of_all(*chats), strict=True))
    assert time.monotonic() - began < FIRST_CHUNK_S + SLACK_S
    await lab.no_cli_is_left()
    seen = Counter(received.body["messages"][-1]["content"] for received in lab.api.requests)
    for name, case in CASES.items():
        failure, attempts = answers[name].error, [chunk["attempt"] for chunk in answers[name].chunks]
        assert (name, failure["kind"], failure["runner"]) == (name, case.kind, "copilot")
        assert failure | case.says == failure
        assert failure["message"]
        assert ("hint" in failure) == case.has_hint
        assert {chunk["type"] for chunk in answers[name].chunks} == ({"retrying"} if case.is_retried else set()), name
        assert {chunk["error"] for chunk in answers[name].chunks} <= {case.kind}
        assert attempts == list(range(1, len(attempts) + 1))
        assert 1 <= seen[name] <= len(attempts) + 1 if case.is_retried else seen[name] == 1


async def test_a_connection_that_is_refused_is_an_error_of_the_network_inside_the_deadline(lab: Lab) -> None:
    chunks, failure = await timed(lab, "refused", FIRST_CHUNK_S)
    assert (failure["kind"], failure["retryable"]) == ("network", True)
    assert {chunk["type"] for chunk in chunks} == {"retrying"}
    assert lab.api.requests == []


async def test_an_error_that_the_cli_gets_over_ends_in_the_answer(lab: Lab) -> None:
    lab.api.script(error(500, "oops", "server_error"), error(500, "oops", "server_error"), text("at ", "last"))
    answer = await lab.chat(user("hi"))
    kinds = [chunk["type"] for chunk in answer.chunks]
    assert [kinds[0], kinds[1], kinds[2], kinds[-2], kinds[-1]] == ["retrying", "retrying", "start", "usage", "done"]
    assert answer.result["content"] == joined(answer.chunks, "text") == "at last"


async def partly_answered(lab: Lab, reply: Reply, runner: str = "copilot") -> Json:
    """The error of an answer that breaks behind "Hel" and "lo", once both are at the client."""
    _, failure = await lab.partly_answered(reply, text("Hello world"), runner=runner)
    return failure


def hello() -> Reply:
    return text("Hel", "lo", " world", pause=asyncio.Event(), pause_after=2)


async def test_a_connection_dropped_mid_stream_ends_the_answer_after_the_text_that_came(lab: Lab) -> None:
    assert (await partly_answered(lab, hello().broken("drop", after=2)))["kind"] == "network"


async def test_a_response_cut_short_mid_stream_ends_the_answer_after_the_text_that_came(lab: Lab) -> None:
    assert (await partly_answered(lab, hello().broken("cut", after=2)))["kind"] == "network"


async def test_an_error_mid_stream_ends_the_answer_after_the_text_that_came(lab: Lab) -> None:
    failure = await partly_answered(lab, hello().broken("error", after=2))
    assert (failure["kind"], failure["message"]) == ("vendor_error", STREAM_ERROR.message)


async def test_an_answer_that_stalls_ends_at_silence_s(lab: Lab) -> None:
    failure = await partly_answered(lab, hello().broken("stall", after=2), runner="impatient")
    assert (failure["kind"], failure["deadline"], failure["limit_s"]) == ("timeout", "silence_s", SILENCE_S + 0.5)
    assert lab.api.requests[0].gone.is_set()


async def test_an_answer_that_never_begins_ends_at_first_chunk_s(lab: Lab) -> None:
    lab.api.script(text("never").broken("stall"))
    _, failure = await timed(lab, "impatient", SILENCE_S)
    assert (failure["kind"], failure["deadline"], failure["limit_s"]) == ("timeout", "first_chunk_s", SILENCE_S)
    await lab.no_cli_is_left()
    assert len(lab.api.requests) == 1


async def test_without_a_login_the_error_says_how_to_log_in_and_nothing_is_asked(lab: Lab) -> None:
    _, failure = await timed(lab, "no_login", FIRST_CHUNK_S)
    assert failure["kind"] == "not_authenticated"
    assert failure["hint"] == "copilot login"
    assert lab.api.requests == []


async def test_a_key_that_is_nowhere_is_a_mistake_in_the_config(lab: Lab) -> None:
    _, failure = await timed(lab, "no_key", FIRST_CHUNK_S)
    assert failure["kind"] == "config"
    assert "runners.no_key.provider.api_key_env" in failure["message"]
    assert "NOT_THERE" in failure["message"]
    assert lab.api.requests == []


async def test_a_failed_chat_leaves_the_next_one_as_it_should_be(lab: Lab) -> None:
    lab.api.script(error(403, "not allowed", "permission_error"))
    assert (await lab.chat(user("first"))).error["kind"] == "permission"
    assert (await lab.chat(user("second"))).result["content"] == "ok"
    assert lab.api.requests[-1].body["messages"] == user("second")


async def test_a_failed_chat_leaves_another_one_in_its_process_alone(lab: Lab) -> None:
    for_the_rest = asyncio.Event()
    lab.api.script(text("Hel", "lo", pause=for_the_rest, pause_after=1))
    good = await lab.begin(user("good"))
    await lab.chunks_until(good, "Hel")
    lab.api.script(error(403, "not allowed", "permission_error"))
    async with await Wire.connect(lab.world.socket) as other:
        response = await other.call("chat", model="copilot", messages=user("bad"))
    assert response["error"]["data"]["kind"] == "permission"
    for_the_rest.set()
    assert (await lab.rest(good)).result["content"] == "Hello"


async def its_process(lab: Lab, runner: str = "copilot") -> psutil.Process:
    """The copilot that serves the chats of this runner that are under way."""
    [pid] = {worker["pid"] for worker in await lab.workers(runner)}
    process = psutil.Process(pid)
    assert process in lab.clis()
    return process


async def state(lab: Lab, runner: str = "copilot") -> str:
    rows = (await lab.wire.call("runners"))["result"]["runners"]
    found = next(row["state"] for row in rows if row["name"] == runner)
    assert isinstance(found, str)
    return found


async def test_a_process_that_is_killed_ends_its_chats_the_runner_is_degraded_and_the_next_chat_mends_it(
    lab: Lab,
) -> None:
    lab.api.script(*[text("Hel", "lo", pause=asyncio.Event(), pause_after=1)] * 2)
    chats = [await lab.begin(user("hi"))]
    await lab.chunks_until(chats[0], "Hel")
    chats.append(await lab.begin(user("hi")))
    await lab.received(2)
    process = await its_process(lab)
    process.kill()
    for answer in await lab.rest_of_all(*chats):
        failure = answer.response["error"]["data"]
        assert failure["kind"] == "process_exited"
        assert failure["exit_code"] == -signal.SIGKILL
        assert failure["retryable"] is True
        assert "SIGKILL" in failure["message"]
    assert joined(answer.chunks, "text") in ("", "Hel")
    await lab.no_cli_is_left()
    assert await state(lab) == "degraded"
    assert (await lab.chat(user("again"))).result["content"] == "ok"
    assert await state(lab) == "ready"


async def test_a_process_that_is_deaf_ends_its_chat_at_silence_s_and_is_gone(lab: Lab) -> None:
    lab.api.script(text("Hel", "lo", pause=asyncio.Event(), pause_after=1))
    chat = await lab.begin(user("hi"), runner="impatient")
    await lab.chunks_until(chat, "Hel")
    process = await its_process(lab, "impatient")
    began = time.monotonic()
    process.suspend()
    failure = (await lab.rest(chat)).response["error"]["data"]
    assert (failure["kind"], failure["deadline"]) == ("timeout", "silence_s")
    assert time.monotonic() - began < SILENCE_S + 0.5 + SLACK_S
    # A new chat does not wait for the old process.
    assert (await lab.chat(user("again"), runner="impatient")).result["content"] == "ok"

    async def gone() -> bool:
        return not process.is_running()

    await until(gone)


async def test_a_deaf_process_is_given_up_by_a_cancel_too(lab: Lab) -> None:
    lab.api.script(text("Hel", "lo", pause=asyncio.Event(), pause_after=1))
    chat = await lab.begin(user("hi"))
    await lab.chunks_until(chat, "Hel")
    (await its_process(lab)).suspend()
    began = time.monotonic()
    await lab.wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": chat}})
    assert (await lab.rest(chat)).error["kind"] == "cancelled"
    assert time.monotonic() - began < SLACK_S
    await lab.no_cli_is_left()


async def test_a_login_that_a_chat_proved_bad_stays_so_until_a_chat_is_answered(lab: Lab) -> None:
    lab.api.script(*[error(401, "bad key", "authentication_error")] * 10)
    await lab.chat(user("first"))
    await lab.no_cli_is_left()
    await lab.api.forget()
    [bad] = (await lab.wire.call("health", runner="copilot"))["result"]["runners"]
    assert (bad["state"], bad["reason"], bad["authenticated"]) == ("unavailable", "auth_expired", False)
    assert (await lab.chat(user("second"))).result["content"] == "ok"
    [good] = (await lab.wire.call("health", runner="copilot"))["result"]["runners"]
    assert (good["state"], good["reason"]) == ("ready", None)
