"""Failures of the real codex and of its API, each with its kind, inside a deadline of ours, and never doubled."""

import asyncio
import base64
import json
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from runners.providers.codex.provider import TESTED_VERSIONS
from runners.testing.apis.responses_api import AnyReply, Reply, error, text
from tests.live.codex_lab import WITH_LOGIN
from tests.live.lab import Entries, Json, Lab, joined
from tests.world import until, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

SILENCE_S = 2.0
SLACK_S = 10.0  # for a busy machine


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entries]:
    planned = tmp_path_factory.mktemp("codex-home")
    (planned / "auth.json").write_text(json.dumps(a_plan()))
    with socket.socket() as closed:
        # Bound and not listening: nobody else takes the port, and a connection to it is refused.
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        yield {
            "codex": {},
            "unused": {},
            "impatient": {"timeouts": {"silence_s": SILENCE_S}},
            "refused": {"base_url": nowhere},
            "no_key": {"api_key_env": "NOT_THERE"},
            "no_login": WITH_LOGIN,
            "offline": WITH_LOGIN | {"env": {"CODEX_HOME": str(planned)}, "timeouts": {"first_chunk_s": 6}},
        }


@pytest.fixture
def lab(lab_of_codex: Lab) -> Lab:
    return lab_of_codex


def a_plan() -> Json:
    """A login of a ChatGPT plan, as the CLI keeps it."""
    auth = {"chatgpt_plan_type": "plus", "chatgpt_account_id": "a", "chatgpt_user_id": "u"}
    claims = {"email": "a@example.org", "exp": 2**31, "https://api.openai.com/auth": auth}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({}, claims, {})]
    tokens = {"id_token": ".".join(parts), "access_token": ".".join(parts), "refresh_token": "r", "account_id": "a"}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": now}


@dataclass(frozen=True)
class Case:
    """What the API says, and the error that a client gets for it."""

    reply: AnyReply
    kind: str
    has_hint: bool = False
    says: Json = field(default_factory=dict)


CASES = {
    "401": Case(error(401, "bad key", code="invalid_api_key"), "auth_expired", has_hint=True),
    "403": Case(error(403, "not allowed", "permission_error"), "permission"),
    "402": Case(error(402, "pay first"), "quota_exhausted"),
    "404": Case(
        error(404, "no such model", code="model_not_found"), "model_not_found", says={"message": "no such model"}
    ),
    "404 of a path": Case(error(404, "Not found"), "model_not_found", has_hint=True),
    "400": Case(error(400, "text.format: no"), "invalid_request", says={"message": "text.format: no"}),
    "context": Case(error(400, "too long", code="context_length_exceeded"), "context_overflow"),
    "429": Case(error(429, "slow down", code="rate_limit_exceeded"), "rate_limited", says={"retryable": True}),
    "no quota": Case(error(429, "no quota", "insufficient_quota", code="insufficient_quota"), "quota_exhausted"),
    "usage limit": Case(error(429, "limit", "usage_limit_reached", plan_type="plus"), "quota_exhausted"),
    "500": Case(error(500, "oops", "server_error"), "vendor_error", says={"retryable": True}),
    "503": Case(error(503, "no capacity", code="server_is_overloaded"), "overloaded", says={"retryable": True}),
    "dropped": Case(text("x").broken("drop"), "network", says={"retryable": True}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_an_error_of_the_api_is_an_error_of_its_kind(lab: Lab, case: Case) -> None:
    lab.api.script(case.reply)
    answer = await lab.chat(user("hi"))
    assert answer.chunks == []
    assert answer.error["kind"] == case.kind
    assert answer.error | case.says == answer.error
    assert answer.error["message"]
    assert ("hint" in answer.error) == case.has_hint
    await lab.no_cli_is_left()
    assert len(lab.api.requests) == 1


def hello() -> Reply:
    return text("Hello", " world", pause=asyncio.Event())


@pytest.mark.parametrize(("how", "kind"), [("drop", "network"), ("cut", "network"), ("error", "vendor_error")])
async def test_an_answer_that_breaks_off_is_what_was_said_and_then_an_error(lab: Lab, how: str, kind: str) -> None:
    reply = hello().broken(how, after=1)  # type: ignore[arg-type]
    _, failure = await lab.partly_answered(reply, text("Hello world"), runner="codex")
    assert (failure["kind"], failure["retryable"]) == (kind, True)


@pytest.mark.parametrize(
    ("why", "stop_reason"), [("max_output_tokens", "length"), ("content_filter", "content_filter")]
)
async def test_an_answer_that_is_cut_says_why_and_the_next_one_is_told_it(lab: Lab, why: str, stop_reason: str) -> None:
    lab.api.script(text("Hel", "lo", incomplete=why))
    answer = await lab.chat(user("hi"))
    assert (answer.result["content"], answer.result["stop_reason"]) == ("Hello", stop_reason)
    await lab.chat([*user("hi"), {"role": "assistant", "content": "Hello"}, *user("go on")])
    assert [item["content"][0]["text"] for item in lab.api.requests[-1].body["input"]] == ["hi", "Hello", "go on"]


async def test_a_connection_that_is_refused_is_an_error_of_the_network(lab: Lab) -> None:
    failure = (await lab.chat(user("hi"), runner="refused")).error
    assert (failure["kind"], failure["retryable"]) == ("network", True)


async def test_a_plan_without_a_network_is_tried_again_for_as_long_as_its_deadline(lab: Lab) -> None:
    answer = await lab.chat(user("hi"), runner="offline")
    assert answer.error["kind"] == "network"
    assert {chunk["type"] for chunk in answer.chunks} <= {"retrying"}
    await lab.no_cli_is_left()


async def test_without_a_login_the_error_says_how_to_log_in_and_nothing_is_asked(lab: Lab) -> None:
    failure = (await lab.chat(user("hi"), runner="no_login")).error
    assert (failure["kind"], failure["hint"]) == ("not_authenticated", "codex login")
    assert failure["message"].endswith("/.codex")
    assert lab.api.requests == []


async def test_health_says_who_can_serve_and_what_mends_the_others(lab: Lab) -> None:
    rows = {row["name"]: row for row in (await lab.wire.call("health"))["result"]["runners"]}
    own, without = rows["unused"], rows["no_login"]
    assert (own["state"], own["authenticated"], own["version"]) == ("ready", None, TESTED_VERSIONS[-1])
    assert lab.api.url in own["detail"]
    assert (without["state"], without["reason"]) == ("unavailable", "not_authenticated")
    assert (without["authenticated"], without["hint"]) == (False, "codex login")
    assert rows["no_key"]["reason"] == "config"
    offline = rows["offline"]
    assert (offline["state"], offline["reason"], offline["authenticated"]) == ("degraded", "network", True)
    assert lab.api.requests == []


async def test_a_key_that_is_nowhere_is_a_mistake_in_the_config(lab: Lab) -> None:
    failure = (await lab.chat(user("hi"), runner="no_key")).error
    assert failure["kind"] == "config"
    assert "runners.no_key.api_key_env: NOT_THERE" in failure["message"]


async def test_a_schema_that_the_answer_must_fit_reaches_the_api_and_a_word_about_any_object_is_said(lab: Lab) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    await lab.chat(user("hi"), response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    assert lab.api.requests[-1].body["text"]["format"]["schema"] == schema
    answer = await lab.chat(user("hi"), response_format={"type": "json_object"})
    assert "json_object" in answer.result["warnings"][0]
    assert "text" not in lab.api.requests[-1].body


async def its_process(lab: Lab, runner: str = "codex") -> psutil.Process:
    """The codex that serves the chats of this runner that are under way."""
    [pid] = {worker["pid"] for worker in await lab.workers(runner)}
    process = psutil.Process(pid)
    assert process in lab.clis()
    return process


async def test_a_process_that_is_killed_ends_its_chats_and_the_next_chat_has_another(lab: Lab) -> None:
    lab.api.script(*[text("Hel", "lo", pause=asyncio.Event())] * 2)
    chats = [await lab.begin(user("hi"))]
    await lab.chunks_until(chats[0], "Hel")
    chats.append(await lab.begin(user("hi")))
    await lab.received(2)
    (await its_process(lab)).kill()
    for answer in await lab.rest_of_all(*chats):
        failure = answer.response["error"]["data"]
        assert (failure["kind"], failure["exit_code"]) == ("process_exited", -signal.SIGKILL)
    assert joined(answer.chunks, "text") in ("", "Hel")
    await lab.no_cli_is_left()
    assert (await lab.chat(user("again"))).result["content"] == "ok"


async def test_a_process_that_is_deaf_ends_its_chat_at_silence_s_and_is_gone(lab: Lab) -> None:
    lab.api.script(text("Hel", "lo", pause=asyncio.Event()))
    chat = await lab.begin(user("hi"), runner="impatient")
    await lab.chunks_until(chat, "Hel")
    process = await its_process(lab, "impatient")
    began = time.monotonic()
    process.suspend()
    failure = (await lab.rest(chat)).response["error"]["data"]
    assert (failure["kind"], failure["deadline"]) == ("timeout", "silence_s")
    assert time.monotonic() - began < SILENCE_S + SLACK_S

    async def gone() -> bool:
        return not process.is_running()

    await until(gone)
    assert (await lab.chat(user("again"), runner="impatient")).result["content"] == "ok"


async def test_a_cancelled_chat_ends_at_the_api_and_leaves_another_one_in_its_process_alone(lab: Lab) -> None:
    for_the_rest = asyncio.Event()
    lab.api.script(text("Hel", "lo", pause=for_the_rest), text("never").broken("stall"))
    good = await lab.begin(user("good"))
    await lab.chunks_until(good, "Hel")
    bad = await lab.begin(user("bad"))
    received = await lab.received(2)
    await lab.cancel(bad)
    await asyncio.wait_for(received.gone.wait(), SLACK_S)
    for_the_rest.set()
    answers = await lab.rest_of_all(good, bad)
    assert (answers[0].result["content"], answers[1].error["kind"]) == ("Hello", "cancelled")
