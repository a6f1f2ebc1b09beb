"""The stand-in API keeps its promises: exact events, gates, breakages, and a prompt shutdown."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from runners.testing.apis.messages_api import AnyReply, MessagesApi, error, text, tool_use

BODY = {"model": "m-1", "max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": "hi"}]}


async def ask(api: MessagesApi, *replies: AnyReply, **changes: Any) -> tuple[int, str]:
    api.script(*replies)
    async with aiohttp.ClientSession() as http, http.post(f"{api.url}/v1/messages", json=BODY | changes) as response:
        return response.status, (await response.read()).decode()


def events(body: str) -> list[dict[str, Any]]:
    parsed = []
    for block in body.split("\n\n")[:-1]:
        name, data = block.split("\n")
        parsed.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {parsed[-1]['type']}"
    return parsed


def deltas(body: str) -> list[str]:
    return [e["delta"]["text"] for e in events(body) if e["type"] == "content_block_delta"]


async def test_a_text_reply_is_the_apis_event_sequence() -> None:
    async with MessagesApi() as api:
        status, body = await ask(api, text("Hel", "lo", usage={"output_tokens": 3}))
        start, *_, stop, end = events(body)
        assert (status, deltas(body), end["type"]) == (200, ["Hel", "lo"], "message_stop")
        assert start["message"]["model"] == "m-1"
        assert start["message"]["usage"]["cache_read_input_tokens"] == 0
        assert stop["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
        assert stop["usage"]["output_tokens"] == 3
        received = await api.received(1)
        assert received.body == BODY == json.loads(received.raw)
        assert (received.finished.is_set(), received.gone.is_set(), received.sent) == (True, False, 8)


async def test_an_emoji_split_over_two_deltas_is_two_escapes_and_other_text_is_utf_8() -> None:
    async with MessagesApi() as api:
        _, body = await ask(api, text("\ud83d", "\ude00", "\u00e9\u2028"))
        assert '"text":"\\ud83d"' in body
        assert '"text":"\\ude00"' in body
        assert '"text":"\u00e9\u2028"' in body


async def test_thinking_refusal_tool_and_stop_sequence_replies() -> None:
    async with MessagesApi() as api:
        _, thought = await ask(api, text("a", thinking="hmm"))
        kinds = [e["delta"]["type"] for e in events(thought) if e["type"] == "content_block_delta"]
        assert kinds == ["thinking_delta", "signature_delta", "text_delta"]
        assert events((await ask(api, text(stop_reason="refusal")))[1])[-2]["delta"]["stop_reason"] == "refusal"
        assert '"partial_json":"{\\"x\\": 1}"' in (await ask(api, tool_use("t", {"x": 1})))[1]
        _, stopped = await ask(api, text("a", stop_reason="stop_sequence", stop_sequence="END"))
        assert events(stopped)[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


async def test_without_stream_the_answer_is_one_message() -> None:
    async with MessagesApi() as api:
        _, body = await ask(api, text("a", "b"), stream=False)
        assert json.loads(body)["content"] == [{"type": "text", "text": "ab"}]


async def test_an_error_has_the_apis_shape_and_headers_and_other_requests_are_listed_apart() -> None:
    async with MessagesApi() as api, aiohttp.ClientSession() as http:
        api.script(error(429, "rate_limit_error", "slow", {"retry-after": "7"}))
        async with http.post(f"{api.url}/v1/messages", json=BODY) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "7")
            assert (await response.json())["error"] == {"type": "rate_limit_error", "message": "slow"}
        assert (await http.head(api.url)).status == 200
        assert (await http.post(f"{api.url}/v1/messages/count_tokens", json={})).status == 404
        assert api.others == [("HEAD", "/"), ("POST", "/v1/messages/count_tokens")]
        assert len(api.requests) == 1


async def test_an_empty_queue_falls_back_to_answer_and_then_to_default() -> None:
    async with MessagesApi() as api:
        assert deltas((await ask(api))[1]) == ["ok"]
        api.answer = lambda body: text(body["messages"][0]["content"])
        assert deltas((await ask(api))[1]) == ["hi"]


async def test_a_paused_reply_waits_after_its_delta() -> None:
    async with MessagesApi() as api:
        gate = asyncio.Event()
        asking = asyncio.create_task(ask(api, text("a", "b", pause=gate)))
        received = await api.received(1)
        await asyncio.sleep(0.05)
        assert (received.sent, received.finished.is_set()) == (4, False)
        gate.set()
        assert deltas((await asking)[1]) == ["a", "b"]


async def test_cut_ends_cleanly_and_overloaded_ends_with_an_error_event() -> None:
    async with MessagesApi() as api:
        _, body = await ask(api, text("a", "b").broken("cut", after=1))
        assert events(body)[-1]["delta"]["text"] == "a"
        _, body = await ask(api, text("a", "b").broken("error", after=0))
        assert (deltas(body), events(body)[-1]["error"]["type"]) == ([], "overloaded_error")


@pytest.mark.parametrize("after", [None, 0, 1, 2])
async def test_drop_resets_the_connection(after: int | None) -> None:
    async with MessagesApi() as api:
        with pytest.raises(aiohttp.ClientError):
            await ask(api, text("a", "b").broken("drop", after=after))
        assert not api.requests[0].finished.is_set()


@pytest.mark.parametrize("after", [None, 1])
async def test_a_client_that_leaves_a_stalled_reply_is_noticed(after: int | None) -> None:
    async with MessagesApi() as api:
        asking = asyncio.create_task(ask(api, text("a", "b").broken("stall", after=after)))
        received = await api.received(1)
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait_for(received.gone.wait(), 1)
        assert received.sent == (4 if after else 0)


async def test_a_client_that_leaves_while_the_reply_is_being_sent_is_noticed_without_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with MessagesApi() as api:
        asking = asyncio.create_task(ask(api, text(*["word " * 100] * 50_000)))
        received = await api.received(1)
        asking.cancel()
        await asyncio.wait_for(received.gone.wait(), 5)
        assert not received.finished.is_set()
    assert caplog.records == []


async def test_leaving_is_prompt_while_replies_stall() -> None:
    async with MessagesApi() as api:
        never = text("a", "b", pause=asyncio.Event())
        asking = [
            asyncio.create_task(ask(api, r))
            for r in (text("a").broken("stall"), text("a").broken("stall", after=1), never)
        ]
        await api.received(3)
        start = time.monotonic()
    assert time.monotonic() - start < 0.5
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(r, aiohttp.ClientError) for r in results)
    assert not any(r.gone.is_set() for r in api.requests)


async def test_5000_deltas_are_cheap() -> None:
    async with MessagesApi() as api:
        start = time.monotonic()
        _, body = await ask(api, text(*["word "] * 5000))
        assert time.monotonic() - start < 1
        assert (len(deltas(body)), api.requests[0].sent) == (5000, 5006)


async def test_a_pause_holds_before_the_first_delta_and_at_a_break() -> None:
    async with MessagesApi() as api:
        for after in (0, 1):
            gate = asyncio.Event()
            reply = text("a", "b", pause=gate, pause_after=after).broken("cut", after=1)
            asking = asyncio.create_task(ask(api, reply))
            received = await api.received(after + 1)
            await asyncio.sleep(0.05)
            assert received.sent == 3 + after
            gate.set()
            assert deltas((await asking)[1]) == ["a"]
