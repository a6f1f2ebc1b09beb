"""What a client sees of the real copilot's answers: chunks as they come, how they end, what they cost, cancelling."""

import asyncio
import json
import random

import pytest

from runners.testing.apis.completions_api import Reply, text, tool_call
from tests.live.lab import Entries, Json, Lab, cancel, joined
from tests.world import END_S, Wire, until, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

CANCEL_S = 20.0
DELTAS = 5_000
ROUNDS = 25


@pytest.fixture(scope="module")
def entries() -> Entries:
    return {"copilot": {}}


@pytest.fixture
def lab(lab_of_copilot: Lab) -> Lab:
    return lab_of_copilot


def newest(body: Json) -> str:
    content = body["messages"][-1]["content"]
    assert isinstance(content, str)
    return content


async def test_the_first_chunk_is_at_the_client_before_the_api_has_sent_the_last(lab: Lab) -> None:
    for_the_rest = asyncio.Event()
    lab.api.script(text("one ", "two ", "three", pause=for_the_rest, pause_after=1))
    chat = await lab.begin(user("count"))
    seen = await lab.chunks_until(chat, "one ")
    received = await lab.received()
    # The role, one delta.
    assert (received.sent, received.finished.is_set()) == (2, False)
    assert [chunk["type"] for chunk in seen] == ["start", "text"]
    for_the_rest.set()
    answer = await lab.rest(chat)
    assert joined(answer.chunks, "text") == "two three"
    assert [chunk["type"] for chunk in answer.chunks[-2:]] == ["usage", "done"]
    assert answer.result["content"] == "one two three"
    assert answer.result["stop_reason"] == "end_turn"


def flood(seed: int) -> tuple[str, ...]:
    """Deltas of which none is like another."""
    choice = random.Random(seed)
    return tuple(f"{number}:{choice.randrange(10**9)} " for number in range(DELTAS))


async def test_5000_deltas_sent_as_fast_as_possible_come_complete(lab: Lab) -> None:
    deltas = flood(1)
    lab.api.script(text(*deltas))
    answer = await lab.chat(user("flood"))
    assert joined(answer.chunks, "text") == answer.result["content"] == "".join(deltas)
    assert sum(chunk["type"] == "text" for chunk in answer.chunks) > 10
    assert answer.result["warnings"] == []


async def test_a_client_that_does_not_read_misses_nothing_and_holds_nobody_up(lab: Lab) -> None:
    deltas = tuple(f"{delta}{'.' * 400}" for delta in flood(2))
    lab.api.script(text(*deltas))
    async with await Wire.connect(lab.world.socket) as other:
        unread = await lab.begin(user("flood"))
        received = await lab.received()
        # Two megabytes fit into no socket: they wait in the daemon, and the process goes on for others.
        _, response = await other.read_until_response(await other.request("chat", model="copilot", messages=user("hi")))
        assert response["result"]["content"] == "ok"
        await asyncio.wait_for(received.finished.wait(), END_S)
    answer = await lab.rest(unread)
    assert joined(answer.chunks, "text") == answer.result["content"] == "".join(deltas)


async def test_reasoning_comes_before_the_text_and_is_no_part_of_it(lab: Lab) -> None:
    lab.api.script(text("Paris", reasoning="France, so \U0001f1eb\U0001f1f7."))
    answer = await lab.chat(user("the capital?"), reasoning_effort="high")
    assert [chunk["type"] for chunk in answer.chunks] == ["start", "reasoning", "text", "usage", "done"]
    assert answer.result["reasoning"] == joined(answer.chunks, "reasoning") == "France, so \U0001f1eb\U0001f1f7."
    assert answer.result["content"] == "Paris"


async def test_an_answer_of_reasoning_alone_is_one(lab: Lab) -> None:
    lab.api.script(text(reasoning="Hm."))
    answer = await lab.chat(user("think"))
    assert (answer.result["reasoning"], answer.result["content"]) == ("Hm.", "")
    assert answer.result["stop_reason"] == "end_turn"


async def test_an_empty_answer_is_an_answer(lab: Lab) -> None:
    lab.api.script(text())
    answer = await lab.chat(user("say nothing"))
    assert [chunk["type"] for chunk in answer.chunks] == ["start", "usage", "done"]
    assert answer.result["content"] == ""
    assert answer.result["stop_reason"] == "end_turn"
    assert len(lab.api.requests) == 1


async def test_an_answer_cut_at_max_tokens_is_exactly_what_came(lab: Lab) -> None:
    # The CLI would ask for more, with words of its own, until its session is aborted: it may be quick enough to have
    # asked before that, and then this call is given up. Nobody else would end it.
    lab.api.script(text("cut ", "off", finish_reason="length"), text("MORE", "never").broken("stall", after=1))
    answer = await lab.chat(user("go on"))
    assert answer.chunks[-1] == {"type": "done", "stop_reason": "length", "raw": "length"}
    assert answer.result["content"] == joined(answer.chunks, "text") == "cut off"
    assert answer.result["usage"]["output_tokens"] == 7
    await lab.no_cli_is_left()
    for more in lab.api.requests[1:]:
        await asyncio.wait_for(more.gone.wait(), END_S)
    assert len(lab.api.requests) <= 2


@pytest.mark.parametrize("deltas", [("I will ", "not."), ()], ids=["with text", "without a word"])
async def test_an_answer_that_was_blocked_is_what_came_of_it(lab: Lab, deltas: tuple[str, ...]) -> None:
    lab.api.script(text(*deltas, finish_reason="content_filter"))
    answer = await lab.chat(user("something bad"))
    assert answer.chunks[-1] == {"type": "done", "stop_reason": "content_filter", "raw": "content_filter"}
    assert answer.result["content"] == "".join(deltas)  # and no word of the CLI's
    assert len(lab.api.requests) == 1


async def test_a_call_of_a_tool_that_was_not_offered_ends_the_answer_with_a_warning_and_runs_nothing(
    lab: Lab,
) -> None:
    trap = lab.world.root / "sprung"
    lab.api.script(tool_call("bash", {"command": f"touch {trap}", "description": "x"}), text("MORE"))
    answer = await lab.chat(user("do something"))
    assert answer.chunks[-1] == {"type": "done", "stop_reason": "tool_calls", "raw": "tool_calls"}
    assert answer.result["content"] == ""
    [call] = answer.result["tool_calls"]
    assert (call["name"], call["arguments"]["description"]) == ("bash", "x")
    [warning] = answer.result["warnings"]
    assert "tool" in warning
    await lab.no_cli_is_left()
    assert not trap.exists()
    assert len(lab.api.requests) <= 2


async def test_usage_is_the_apis_with_cached_tokens_as_part_of_the_input(lab: Lab) -> None:
    usage = {
        "prompt_tokens": 130,
        "completion_tokens": 42,
        "total_tokens": 172,
        "prompt_tokens_details": {"cached_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    lab.api.script(text("ok", usage=usage))
    answer = await lab.chat(user("hi"))
    got = answer.result["usage"]
    assert got["input_tokens"] == 130
    assert got["cached_input_tokens"] == 100
    assert got["output_tokens"] == 42
    assert got["reasoning_tokens"] == 30
    assert got["cost_usd"] is None
    assert answer.chunks[-2] == {"type": "usage", "usage": got}


async def test_two_conversations_in_one_process_never_see_each_others_text(lab: Lab) -> None:
    pauses: dict[int, asyncio.Event] = {}

    def answer(body: Json) -> Reply:
        asked = newest(body)
        number = int(asked.split()[1])
        return text(f"{asked} begins, ", f"{asked} ends", pause=pauses[number], pause_after=1)

    # Keeps the process: without a chat there is none.
    lab.api.script(text("held", "never").broken("stall", after=1))
    held = await lab.begin(user("held"))
    await lab.chunks_until(held, "held")
    lab.api.answer = answer
    said: dict[str, list[Json]] = {"left": [], "right": []}
    processes = set()
    for number in range(ROUNDS):
        pauses[number] = asyncio.Event()
        for who in said:
            said[who] += user(f"{who} {number}")
        chats = {who: await lab.begin(conversation) for who, conversation in said.items()}
        # Both are in the middle of their answers.
        await lab.received(2 * number + 3)
        processes |= {worker["pid"] for worker in await lab.workers()}
        pauses[number].set()
        answers = await lab.rest_of_all(*chats.values())
        for who, got in zip(said, answers, strict=True):
            whole = f"{who} {number} begins, {who} {number} ends"
            assert got.result["content"] == joined(got.chunks, "text") == whole
            said[who].append({"role": "assistant", "content": whole})
    assert len(processes) == 1
    for received in lab.api.requests[1:]:
        who = newest(received.body).split()[0]
        assert received.body["messages"] == said[who][: len(received.body["messages"])]
    await lab.cancel(held)
    assert (await lab.rest(held)).error["kind"] == "cancelled"


async def test_a_chat_cancelled_mid_stream_ends_its_request_to_the_api_and_the_next_one_works(lab: Lab) -> None:
    lab.api.script(text("Hel", "lo", pause=asyncio.Event(), pause_after=1))
    chat = await lab.begin(user("hi"))
    await lab.chunks_until(chat, "Hel")
    await lab.cancelled_in_time(chat, CANCEL_S)
    assert (await lab.chat(user("again"))).result["content"] == "ok"
    assert lab.api.requests[-1].body["messages"] == user("again")


async def test_a_chat_cancelled_before_the_api_has_answered_ends_its_request_to_the_api(lab: Lab) -> None:
    lab.api.script(text("never").broken("stall"))
    await lab.cancelled_in_time(await lab.begin(user("hi")), CANCEL_S)


async def test_a_chat_cancelled_while_its_cli_starts_is_answered_and_leaves_no_cli(lab: Lab) -> None:
    lab.api.script(text("never").broken("stall"))  # should the CLI be quicker than this test
    chat = await lab.begin(user("hi"))

    async def started() -> bool:
        return bool(lab.clis())

    await until(started)
    await lab.cancel(chat)
    assert (await lab.rest(chat)).error["kind"] == "cancelled"
    await lab.no_cli_is_left()


async def test_a_chat_cancelled_in_the_same_breath_is_answered_and_never_reaches_the_api(lab: Lab) -> None:
    chat = {"jsonrpc": "2.0", "id": 1, "method": "chat", "params": {"model": "copilot", "messages": user("hi")}}
    await lab.wire.send(b"".join(json.dumps(message).encode() + b"\n" for message in (chat, cancel(1))))
    assert (await lab.rest(1)).error["kind"] == "cancelled"
    await lab.no_cli_is_left()
    assert lab.api.requests == []


async def test_cancelling_one_of_two_chats_in_a_process_leaves_the_other_alone(lab: Lab) -> None:
    for_the_rest = asyncio.Event()
    lab.api.answer = lambda body: text(newest(body), "!", pause=for_the_rest, pause_after=1)
    doomed, other = [await lab.begin(user(word)) for word in ("doomed", "other")]
    both = [await lab.received(n) for n in (1, 2)]
    dropped = next(received for received in both if newest(received.body) == "doomed")
    assert len({worker["pid"] for worker in await lab.workers()}) == 1
    await lab.cancel(doomed)
    await asyncio.wait_for(dropped.gone.wait(), CANCEL_S)
    for_the_rest.set()
    first, second = await lab.rest_of_all(doomed, other)
    assert first.error["kind"] == "cancelled"
    assert second.result["content"] == "other!"


async def test_a_client_that_hangs_up_mid_stream_ends_its_request_to_the_api_and_its_cli(lab: Lab) -> None:
    lab.api.script(text("Hel", "lo", pause=asyncio.Event(), pause_after=1))
    chat = await lab.begin(user("hi"))
    await lab.chunks_until(chat, "Hel")
    received = await lab.received()
    await lab.wire.close()
    await asyncio.wait_for(received.gone.wait(), CANCEL_S)
    await lab.no_cli_is_left()
    assert len(lab.api.requests) == 1
