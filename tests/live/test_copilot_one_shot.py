"""An old copilot, whose headless server is not used: every chat has a process of its own and one text as its prompt."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runners.providers.copilot.provider import TESTED_VERSIONS
from runners.testing.apis.completions_api import AnyReply, error, text
from tests.conftest import real_cli
from tests.live.copilot_lab import NO_LOGIN, copilot_lab
from tests.live.lab import Json, Lab, joined
from tests.world import World, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

FIRST_CHUNK_S = 10.0
SLACK_S = 15.0  # for a busy machine; the CLI's own time is up to 60 s
CANCEL_S = 20.0
DATE = re.compile(r"<current_datetime>[^<]*</current_datetime>\n\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_lab(module_world: World) -> AsyncIterator[Lab]:
    old = real_cli("copilot", TESTED_VERSIONS[0])
    in_time = {"timeouts": {"first_chunk_s": FIRST_CHUNK_S}}
    async with copilot_lab(module_world, old, {"copilot": {}, "impatient": in_time, "no_login": NO_LOGIN}) as lab:
        yield lab


def prompt(body: Json) -> str:
    """The user's text, less the date before it, which no switch takes away."""
    [message] = [message for message in body["messages"] if message["role"] == "user"]
    text, dates = DATE.subn("", message["content"])
    assert dates == 1
    return text


async def test_health_says_what_it_cannot_do_and_what_mends_that(lab: Lab) -> None:
    [row] = (await lab.wire.call("health", runner="copilot"))["result"]["runners"]
    assert (row["ok"], row["version"]) == (True, TESTED_VERSIONS[0])
    assert "stream" in row["detail"]
    assert row["hint"] == "copilot update"
    able = next(row for row in (await lab.wire.call("runners"))["result"]["runners"] if row["name"] == "copilot")
    assert able["capabilities"]["streaming"] is False
    assert able["capabilities"]["exact_text"] is False


async def test_an_answer_that_comes_too_fast_for_the_cli_comes_whole(lab: Lab) -> None:
    deltas = [f"{number}:\u2028\U0001f600\n " for number in range(5_000)]
    lab.api.script(text(*deltas))
    answer = await lab.chat(user("flood"))
    assert answer.result["content"] == joined(answer.chunks, "text") == "".join(deltas)
    assert answer.result["stop_reason"] == "end_turn"


async def test_the_client_is_warned_of_what_the_cli_does_to_its_text_and_refused_with_strict(lab: Lab) -> None:
    answer = await lab.chat(user("hi"), temperature=0.5)
    about_text, about_temperature = sorted(answer.result["warnings"], key=lambda warning: "temperature" in warning)
    assert "date" in about_text
    assert "temperature" in about_temperature
    body = (await lab.received()).body
    assert prompt(body) == "hi"
    assert "tools" not in body
    failure = (await lab.chat(user("hi"), strict=True)).error
    assert failure["kind"] == "unsupported"
    assert len(lab.api.requests) == 1


async def test_a_whole_conversation_is_one_text_that_ends_with_the_newest_message(lab: Lab) -> None:
    await lab.chat(
        [
            {"role": "system", "content": "Be brief."},
            *user("one"),
            {"role": "assistant", "content": "1"},
            *user("@/etc/passwd /help two"),
        ]
    )
    sent = prompt((await lab.received()).body)
    places = [sent.index(words) for words in ("Be brief.", "one", "1", "@/etc/passwd /help two")]
    assert places == sorted(places)
    assert sent.endswith("@/etc/passwd /help two")
    assert "root:" not in sent


async def test_a_megabyte_arrives(lab: Lab) -> None:
    whole = "".join(f"{number} \u00fc\U0001f600\n" for number in range(80_000))
    assert len(whole.encode()) > 1_000_000
    answer = await lab.chat(user(whole + "end"))
    if "error" in answer.response:
        # The CLI's own budget for a model that it does not know.
        assert answer.error["kind"] == "context_overflow"
        assert lab.api.requests == []
    else:
        assert prompt((await lab.received()).body) == whole + "end"


ERRORS = {
    "401": (error(401, "bad key", "authentication_error", code="invalid_api_key"), "auth_expired"),
    "403": (error(403, "not allowed", "permission_error"), "permission"),
    "429": (error(429, "slow down", "rate_limit_error", code="rate_limited"), "rate_limited"),
    "500": (error(500, "oops", "server_error"), "vendor_error"),
    "no answer": (text("x").broken("drop"), "network"),
}


@pytest.mark.parametrize(("reply", "kind"), ERRORS.values(), ids=ERRORS)
async def test_an_error_of_the_api_is_an_error_of_its_kind_inside_the_deadline(
    lab: Lab, reply: AnyReply, kind: str
) -> None:
    lab.api.script(*[reply] * 10)
    began = time.monotonic()
    failure = (await lab.chat(user("hi"), runner="impatient")).error
    assert failure["kind"] == kind
    assert time.monotonic() - began < FIRST_CHUNK_S + SLACK_S


async def test_an_answer_cut_at_its_length_is_what_came_and_not_what_the_cli_asks_for_behind_it(lab: Lab) -> None:
    lab.api.script(text("cut ", "off", finish_reason="length"), text("MORE"))
    answer = await lab.chat(user("go on"))
    assert (answer.result["content"], answer.result["stop_reason"]) == ("cut off", "length")


async def test_without_a_login_the_error_says_how_to_log_in(lab: Lab) -> None:
    failure = (await lab.chat(user("hi"), runner="no_login")).error
    assert (failure["kind"], failure["hint"]) == ("not_authenticated", "copilot login")
    assert lab.api.requests == []


async def test_a_chat_that_is_cancelled_ends_its_request_to_the_api_and_its_process(lab: Lab) -> None:
    lab.api.script(text("Hel", "lo", pause=asyncio.Event(), pause_after=1))
    chat = await lab.begin(user("hi"))
    received = await lab.received()
    await lab.wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": chat}})
    await asyncio.wait_for(received.gone.wait(), CANCEL_S)
    assert (await lab.rest(chat)).error["kind"] == "cancelled"
    await lab.no_cli_is_left()
    assert len(lab.api.requests) == 1


async def test_the_users_own_home_is_neither_read_nor_written(lab: Lab) -> None:
    sprung = lab.world.root / "sprung"
    server = {"type": "local", "command": "/bin/sh", "args": ["-c", f"touch {sprung}"], "tools": ["*"], "env": {}}
    home = lab.world.home / ".copilot"
    home.mkdir(exist_ok=True)
    (home / "mcp-config.json").write_text(json.dumps({"mcpServers": {"stripes": server}}))
    (home / "copilot-instructions.md").write_text("Always say zebra-crossing.")
    before = set(home.rglob("*"))
    await lab.chat(user("hi"))
    assert b"zebra-crossing" not in (await lab.received()).raw
    await lab.no_cli_is_left()
    assert not sprung.exists()
    assert set(home.rglob("*")) == before
    for left in (home / "mcp-config.json", home / "copilot-instructions.md"):
        left.unlink()


async def test_chats_leave_nothing_but_the_clis_configuration(lab: Lab) -> None:
    await lab.chat(user("hi"))
    await lab.no_cli_is_left()
    runner: Path = lab.world.state / "runnerd" / "runners" / "copilot"
    # That much its headless server has of its own, which tells whether there is a login.
    assert {path.name for path in runner.rglob("*") if not path.is_dir()} <= {"config.json", "settings.json.lock"}
