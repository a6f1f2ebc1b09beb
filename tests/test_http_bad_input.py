"""What is wrong with a request over HTTP is told by the path of the field; what nobody knows is left alone."""

from typing import Any

import pytest

from tests.http_client import CHATS, COMPLETIONS, COUNT, MESSAGES, RESPONSES, ask, http_socket
from tests.test_http_fuzz import PNG, WHOLE, Step, changed, places
from tests.world import Daemon

A_PNG = f"data:image/png;base64,{PNG}"
IMAGE = {"type": "image_url", "image_url": {"url": A_PNG}}
SAID = [{"role": "user", "content": "Hi"}]

Case = tuple[tuple[Step, ...], Any, str]

OF_COMPLETIONS: list[Case] = [
    (("model",), 5, "model"),
    (("messages",), "Hi", "messages"),
    (("messages",), [], "messages"),
    (("messages",), None, "messages"),
    (("messages", 1), "Hi", "messages[1]"),
    (("messages", 1, "role"), "robot", "messages[1].role"),
    (("messages", 1, "role"), None, "messages[1].role"),
    (("messages", 1, "content"), 5, "messages[1].content"),
    (("messages", 1, "content"), {"type": "text"}, "messages[1].content"),
    (("messages", 1, "content", 0), "Hi", "messages[1].content[0]"),
    (("messages", 1, "content", 0, "type"), "video", "messages[1].content[0].type"),
    (("messages", 1, "content", 0, "text"), ["Hi"], "messages[1].content[0].text"),
    (("messages", 1, "content", 0), IMAGE | {"image_url": A_PNG}, "messages[1].content[0].image_url"),
    (
        ("messages", 1, "content", 0),
        {"type": "image_url", "image_url": {"url": "https://page.example/a.png"}},
        "messages[1].content[0].image_url.url",
    ),
    (
        ("messages", 1, "content", 0),
        {"type": "image_url", "image_url": {"url": A_PNG.replace("png", "gif", 1)}},
        "messages[1].content[0].image_url.url",
    ),
    (("messages", 2, "tool_calls"), {}, "messages[2].tool_calls"),
    (("messages", 2, "tool_calls", 0, "id"), "", "messages[2].tool_calls[0].id"),
    (("messages", 2, "tool_calls", 0, "function"), None, "messages[2].tool_calls[0].function"),
    (("messages", 2, "tool_calls", 0, "function", "name"), 5, "messages[2].tool_calls[0].function.name"),
    (("messages", 2, "tool_calls", 0, "function", "arguments"), {}, "messages[2].tool_calls[0].function.arguments"),
    (("messages", 3, "tool_call_id"), None, "messages[3].tool_call_id"),
    (("messages", 3, "content"), None, "messages[3].content"),
    (("tools",), {}, "tools"),
    (("tools", 0, "type"), "web_search", "tools[0].type"),
    (("tools", 0, "function", "name"), "", "tools[0].function.name"),
    (("tools", 0, "function", "parameters"), [], "tools[0].function.parameters"),
    (("tools", 0, "function", "description"), 5, "tools[0].function.description"),
    (("tool_choice",), "always", "tool_choice"),
    (("tool_choice",), {"type": "function", "function": {}}, "tool_choice.function.name"),
    (("stream",), "yes", "stream"),
    (("stream_options",), True, "stream_options"),
    (("stream_options", "include_usage"), 1, "stream_options.include_usage"),
    (("max_completion_tokens",), 0, "max_completion_tokens"),
    (("max_completion_tokens",), 1.5, "max_completion_tokens"),
    (("temperature",), "warm", "temperature"),
    (("temperature",), 2.5, "temperature"),
    (("top_p",), 0, "top_p"),
    (("stop",), 5, "stop"),
    (("stop", 0), 5, "stop[0]"),
    (("response_format", "type"), "xml", "response_format.type"),
    (("response_format", "json_schema", "schema"), "object", "response_format.json_schema.schema"),
    (("response_format", "json_schema"), None, "response_format"),
    (("reasoning_effort",), "huge", "reasoning_effort"),
    (("n",), 2, "n"),
]
OF_RESPONSES: list[Case] = [
    (("model",), [], "model"),
    (("input",), None, "input"),
    (("input",), [], "input"),
    (("input", 0), 5, "input[0]"),
    (("input", 0, "type"), "computer_call", "input[0].type"),
    (("input", 0, "role"), "tool", "input[0].role"),
    (("input", 0, "content"), None, "input[0].content"),
    (("input", 0, "content", 0, "type"), "input_file", "input[0].content[0].type"),
    (("input", 0, "content", 0, "text"), None, "input[0].content[0].text"),
    (("input", 1, "summary"), "Hm.", "input[1].summary"),
    (("input", 1, "summary", 0, "text"), 5, "input[1].summary[0].text"),
    (("input", 2, "arguments"), {}, "input[2].arguments"),
    (("input", 2, "call_id"), "", "input[2].call_id"),
    (("input", 3, "output"), 18, "input[3].output"),
    (("input", 4, "input"), {}, "input[4].input"),
    (("instructions",), ["Be brief."], "instructions"),
    (("tools", 0), "weather", "tools[0]"),
    (("tools", 0, "type"), None, "tools[0].type"),
    (("tools", 0, "name"), 5, "tools[0].name"),
    (("tools", 0, "parameters"), "object", "tools[0].parameters"),
    (("tool_choice", "type"), "mcp", "tool_choice.type"),
    (("max_output_tokens",), "100", "max_output_tokens"),
    (("text", "format", "type"), "xml", "text.format.type"),
    (("text", "format", "schema"), [], "text.format.schema"),
    (("reasoning", "effort"), 5, "reasoning.effort"),
    (("previous_response_id",), "resp_1", "previous_response_id"),
    (("background",), True, "background"),
]
OF_MESSAGES: list[Case] = [
    (("messages",), {}, "messages"),
    (("messages", 0, "role"), "tool", "messages[0].role"),
    (("messages", 0, "content"), 5, "messages[0].content"),
    (("messages", 0, "content", 0, "type"), "document", "messages[0].content[0].type"),
    (("messages", 0, "content", 0, "text"), 5, "messages[0].content[0].text"),
    (
        ("messages", 0, "content", 0),
        {"type": "image", "source": {"type": "url", "url": "https://page.example/a.png"}},
        "messages[0].content[0].source.type",
    ),
    (("messages", 1, "content", 2, "input"), "Paris", "messages[1].content[2].input"),
    (("messages", 1, "content", 2, "id"), "", "messages[1].content[2].id"),
    (("messages", 1, "content", 0, "thinking"), None, "messages[1].content[0].thinking"),
    (("messages", 2, "content", 0, "tool_use_id"), 5, "messages[2].content[0].tool_use_id"),
    (("messages", 2, "content", 0, "is_error"), "no", "messages[2].content[0].is_error"),
    (("messages", 2, "content", 0, "content", 0, "text"), 5, "messages[2].content[0].content[0].text"),
    (("system",), 5, "system"),
    (("system", 0, "type"), "image", "system[0].type"),
    (("system", 0, "text"), None, "system[0].text"),
    (("max_tokens",), -1, "max_tokens"),
    (("temperature",), 1.5, "temperature"),
    (("stop_sequences",), "END", "stop_sequences"),
    (("stop_sequences", 0), 5, "stop_sequences[0]"),
    (("tools", 0, "name"), None, "tools[0].name"),
    (("tools", 0, "input_schema"), None, "tools[0].input_schema"),
    (("tool_choice", "type"), "one", "tool_choice.type"),
    (("thinking", "type"), "some", "thinking.type"),
    (("thinking", "budget_tokens"), "many", "thinking.budget_tokens"),
    (("output_config", "effort"), "huge", "output_config.effort"),
    (("output_config", "format", "schema"), None, "output_config.format.schema"),
]
CASES = [
    *((COMPLETIONS, *case) for case in OF_COMPLETIONS),
    *((RESPONSES, *case) for case in OF_RESPONSES),
    *((path, *case) for path in (MESSAGES, COUNT) for case in OF_MESSAGES),
]


@pytest.mark.parametrize(("path", "place", "value", "named"), CASES, ids=lambda part: str(part)[:40])
async def test_a_wrong_field_is_named_by_its_path(
    daemon: Daemon, path: str, place: tuple[Step, ...], value: Any, named: str
) -> None:
    body = changed(WHOLE[path], place, value)
    answer = await ask(http_socket(daemon), "POST", path, body)
    assert (answer.status, answer.headers["x-should-retry"]) == (400, "false"), answer
    error = answer.json["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(f"{named}: "), error["message"]
    assert error["runnerd"]["problems"][0]["path"] == named
    if path in (COMPLETIONS, RESPONSES):
        assert error["param"] == named


@pytest.mark.parametrize("path", [*CHATS, COUNT])
@pytest.mark.parametrize("body", [None, [], "Hi", 5, True], ids=repr)
async def test_a_body_that_is_no_object_is_refused(daemon: Daemon, path: str, body: Any) -> None:
    answer = await ask(http_socket(daemon), "POST", path, b"null" if body is None else body)
    assert answer.status == 400
    assert answer.json["error"]["message"]


@pytest.mark.parametrize("path", [*CHATS, COUNT])
async def test_an_unknown_field_is_left_alone_wherever_it_is(daemon: Daemon, path: str) -> None:
    whole = WHOLE[path]
    body = whole | {"novelty": {"a": 1}}
    for place in places(whole):
        inner: Any = whole
        for step in place:
            inner = inner[step]
        if isinstance(inner, dict) and "parameters" not in place and "schema" not in place:
            body = changed(body, (*place, "novelty"), {"a": [1, None]})
    answer = await ask(http_socket(daemon), "POST", path, body)
    assert answer.status == 200, answer.body
    if path != RESPONSES:  # it says a part of the request again
        assert b"novelty" not in answer.body
