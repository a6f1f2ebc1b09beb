"""What a client sees of the real claude's answers: chunks as they come, how they end, what they cost, cancelling."""

import asyncio
import json

import pytest

from runners.testing.apis.messages_api import Reply, text
from tests.conftest import NEWEST_CLAUDE
from tests.live.claude_body import newest
from tests.live.lab import Json, Lab, cancel, joined
from tests.world import END_S, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), NEWEST_CLAUDE]

CANCEL_S = 1.0


async def test_the_first_chunk_is_at_the_client_before_the_api_has_sent_the_last(lab: Lab) -> None:
    for_the_rest = asyncio.Event()
    lab.api.script(text("one ", "two ", "three", pause=for_the_rest, pause_after=1))
    chat = await lab.begin(user("count"))
    seen = await lab.chunks_until(chat, "one ")
    received = await lab.received()
    # message_start, content_block_start, ping, one delta.
    assert (received.sent, received.finished.is_set()) == (4, False)
    assert [chunk["type"] for chunk in seen] == ["start", "text"]
    for_the_rest.set()
    answer = await lab.rest(chat)
    assert joined(answer.chunks, "text") == "two three"
    assert [chunk["type"] for chunk in answer.chunks[-2:]] == ["usage", "done"]
    assert answer.result["content"] == "one two three"
    assert answer.result["stop_reason"] == "end_turn"


async def test_two_chats_at_once_on_one_connection_get_each_its_own_answer(lab: Lab) -> None:
    for_the_rest = asyncio.Event()

    def answer(body: Json) -> Reply:
        word = newest(body)
        return text(f"{word} begins ", f"{word} ends", pause=for_the_rest, pause_after=1)

    lab.api.answer = answer
    chats = [await lab.begin(user(word)) for word in ("left", "right")]
    await lab.received(2)
    for_the_rest.set()
    left, right = await lab.rest_of_all(*chats)
    for got, word in ((left, "left"), (right, "right")):
        assert got.result["content"] == joined(got.chunks, "text") == f"{word} begins {word} ends"


async def test_a_refusal_is_an_answer_that_ends_with_content_filter_and_a_warning(lab: Lab) -> None:
    lab.api.script(text("I will ", "not.", stop_reason="refusal"))
    answer = await lab.chat(user("something bad"))
    assert answer.chunks[-1] == {"type": "done", "stop_reason": "content_filter", "raw": "refusal"}
    assert answer.result["stop_reason"] == "content_filter"
    assert answer.result["content"] == "I will not."
    assert len(answer.result["warnings"]) == 1
    assert len(lab.api.requests) == 1


async def test_a_refusal_without_a_word_is_an_answer_too(lab: Lab) -> None:
    lab.api.script(text(stop_reason="refusal"))
    answer = await lab.chat(user("something bad"))
    assert answer.result["stop_reason"] == "content_filter"
    assert answer.result["content"] == ""
    assert len(answer.result["warnings"]) == 1


async def test_an_answer_cut_at_max_tokens_is_exactly_what_came_with_the_apis_usage(lab: Lab) -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 2}
    # The CLI would ask for more, with words of its own; it is killed, and may be too quick for that.
    lab.api.script(text("cut ", "off", stop_reason="max_tokens", usage=usage), text("MORE"))
    answer = await lab.chat(user("go on"), max_tokens=2)
    assert answer.chunks[-1] == {"type": "done", "stop_reason": "length", "raw": "max_tokens"}
    assert answer.result["content"] == joined(answer.chunks, "text") == "cut off"
    counts = {name: count for name, count in answer.result["usage"].items() if name.endswith("_tokens")}
    assert (counts["input_tokens"], counts["cached_input_tokens"], counts["output_tokens"]) == (8, 3, 2)


async def test_a_stop_sequence_is_said(lab: Lab) -> None:
    lab.api.script(text("before ", stop_reason="stop_sequence", stop_sequence="END"))
    answer = await lab.chat(user("go"), stop=["END"])
    assert answer.chunks[-1] == {"type": "done", "stop_reason": "stop_sequence", "raw": "stop_sequence"}
    assert answer.result["content"] == "before "
    assert (await lab.received()).body["stop_sequences"] == ["END"]


async def test_thinking_that_was_asked_for_comes_as_reasoning_before_the_text(lab: Lab) -> None:
    lab.api.script(text("Paris", thinking="France, so \U0001f1eb\U0001f1f7."))
    answer = await lab.chat(user("the capital?"), reasoning_effort="high")
    body = (await lab.received()).body
    assert body["thinking"]["type"] == "adaptive"
    assert body["output_config"]["effort"] == "high"
    kinds = [chunk["type"] for chunk in answer.chunks]
    assert kinds == ["start", "reasoning", "text", "usage", "done"]
    assert answer.result["reasoning"] == joined(answer.chunks, "reasoning") == "France, so \U0001f1eb\U0001f1f7."
    assert answer.result["content"] == "Paris"


async def test_a_reasoning_effort_of_none_is_no_thinking(lab: Lab) -> None:
    answer = await lab.chat(user("hi"), reasoning_effort="none")
    assert "thinking" not in (await lab.received()).body
    assert answer.result["reasoning"] is None
    assert answer.result["warnings"] == []


async def test_usage_counts_cached_tokens_as_part_of_the_input(lab: Lab) -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens": 42,
    }
    lab.api.script(text("ok", usage=usage))
    answer = await lab.chat(user("hi"))
    got = answer.result["usage"]
    assert got["input_tokens"] == 130
    assert got["cached_input_tokens"] == 100
    assert got["cache_creation_input_tokens"] == 20
    assert got["output_tokens"] == 42
    assert got["cost_usd"] > 0
    assert answer.chunks[-2] == {"type": "usage", "usage": got}


async def test_a_chat_cancelled_mid_stream_ends_its_request_to_the_api_and_its_cli(lab: Lab) -> None:
    lab.api.script(text("Hel", "lo", pause=asyncio.Event(), pause_after=1))
    chat = await lab.begin(user("hi"))
    await lab.chunks_until(chat, "Hel")
    await lab.cancelled_in_time(chat, CANCEL_S)
    assert (await lab.chat(user("again"))).result["content"] == "ok"


async def test_a_chat_cancelled_before_the_api_has_answered_ends_its_request_to_the_api_and_its_cli(lab: Lab) -> None:
    lab.api.script(text("never").broken("stall"))
    await lab.cancelled_in_time(await lab.begin(user("hi")), CANCEL_S)


async def test_a_chat_cancelled_while_its_cli_starts_is_answered_and_leaves_no_cli(lab: Lab) -> None:
    lab.api.script(text("never").broken("stall"))  # should the CLI be quicker than this test
    chat = await lab.begin(user("hi"))
    async with asyncio.timeout(END_S):
        while not lab.clis():  # noqa: ASYNC110 nothing tells of a process of others
            await asyncio.sleep(0.005)
    await lab.cancel(chat)
    assert (await lab.rest(chat)).error["kind"] == "cancelled"
    await lab.no_cli_is_left()


async def test_a_chat_cancelled_in_the_same_breath_is_answered_and_never_reaches_the_api(lab: Lab) -> None:
    chat = {"jsonrpc": "2.0", "id": 1, "method": "chat", "params": {"model": "claude", "messages": user("hi")}}
    await lab.wire.send(b"".join(json.dumps(message).encode() + b"\n" for message in (chat, cancel(1))))
    assert (await lab.rest(1)).error["kind"] == "cancelled"
    await lab.no_cli_is_left()
    assert lab.api.requests == []


async def test_cancelling_one_of_two_chats_leaves_the_other_alone(lab: Lab) -> None:
    for_the_rest = asyncio.Event()
    lab.api.answer = lambda body: text(newest(body), "!", pause=for_the_rest, pause_after=1)
    doomed, other = [await lab.begin(user(word)) for word in ("doomed", "other")]
    both = [await lab.received(n) for n in (1, 2)]
    dropped = next(received for received in both if newest(received.body) == "doomed")
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
