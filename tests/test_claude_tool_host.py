"""The MCP server that claude asks for the client's tools."""

from typing import Any

import pytest

from runners.messages import ChatMessage
from runners.providers.claude.sent import names_of
from runners.providers.claude.tool_host import ToolHost, passes_unchanged
from runners.tools import ToolDefinition
from tests.live.test_claude_requests import png

TOOLS = [ToolDefinition(name="get_weather", description="The weather."), ToolDefinition(name="a.b")]


@pytest.fixture
def host() -> ToolHost:
    return ToolHost(TOOLS, names_of(TOOLS))


def request(method: str, **params: Any) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    asked = {"subtype": "mcp_message", "server_name": "host", "message": message}
    return {"type": "control_request", "request_id": f"r-{method}", "request": asked}


def call(call_id: str) -> dict[str, Any]:
    return request("tools/call", name="get_weather", arguments={}, _meta={"claudecode/toolUseId": call_id})


def told(answer: dict[str, Any] | None) -> dict[str, Any]:
    assert answer is not None
    assert (answer["type"], answer["response"]["subtype"]) == ("control_response", "success")
    message = answer["response"]["response"]["mcp_response"]
    assert (message["jsonrpc"], message["id"]) == ("2.0", 7)
    assert isinstance(message, dict)
    return message


def result(call_id: str, content: Any = "18 degrees", **fields: Any) -> ChatMessage:
    return ChatMessage.model_validate({"role": "tool", "tool_call_id": call_id, "content": content, **fields})


def test_it_is_initialized_in_the_version_that_the_cli_speaks(host: ToolHost) -> None:
    told_of = told(host.asked(request("initialize", protocolVersion="2099-01-01")))["result"]
    assert told_of["protocolVersion"] == "2099-01-01"
    assert told_of["capabilities"] == {"tools": {}}
    assert told(host.asked(request("notifications/initialized")))["result"] == {}


def test_it_lists_the_tools_by_the_names_that_the_model_knows(host: ToolHost) -> None:
    listed = told(host.asked(request("tools/list")))["result"]["tools"]
    assert [(tool["name"], tool["description"], tool["inputSchema"]) for tool in listed] == [
        ("get_weather", "The weather.", {"type": "object"}),
        ("a_b", "", {"type": "object"}),
    ]
    # So it asks for all calls of an answer at once.
    assert all(tool["annotations"]["readOnlyHint"] for tool in listed)


def test_what_it_does_not_know_is_an_error_and_not_silence(host: ToolHost) -> None:
    assert told(host.asked(request("resources/list")))["error"]["code"] == -32601


def test_a_call_waits_for_its_result_whichever_comes_first(host: ToolHost) -> None:
    assert host.asked(call("c1")) is None
    [answer] = host.given([result("c2", "two"), result("c1", "one")])
    assert told(answer)["result"] == {"content": [{"type": "text", "text": "one"}], "isError": False}
    assert told(host.asked(call("c2")))["result"]["content"] == [{"type": "text", "text": "two"}]


def test_errors_and_images_are_told_as_such(host: ToolHost) -> None:
    host.asked(call("c1"))
    [answer] = host.given([result("c1", "no such city", is_error=True)])
    assert told(answer)["result"] == {"content": [{"type": "text", "text": "no such city"}], "isError": True}
    host.asked(call("c2"))
    image = {"type": "image", "media_type": "image/png", "data": png(2)}
    [answer] = host.given([result("c2", [{"type": "text", "text": "see"}, image])])
    assert told(answer)["result"]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image", "data": png(2), "mimeType": "image/png"},
    ]
    # Its vendor takes no block of white space.
    host.asked(call("c3"))
    [answer] = host.given([result("c3", [{"type": "text", "text": part} for part in ("a", "\n", "", "b")])])
    assert told(answer)["result"]["content"] == [{"type": "text", "text": "a\nb"}]


IMAGE = {"type": "image", "media_type": "image/png", "data": png(2)}


@pytest.mark.parametrize(
    ("content", "is_error", "passes"),
    [
        ("18 degrees\n", False, True),
        ("no such city", True, True),
        ([IMAGE], False, True),
        ("x" * 499_000, False, True),
        # It would be told as other words, as a file, without its image, without its line feed.
        ("", False, False),
        (" \n", False, False),
        ("", True, False),
        ("x" * 500_000, False, False),
        ("\U0001f600" * 250_000, False, False),  # each counts twice
        ("x" * 9_000, True, True),
        ("x" * 10_000, True, False),
        ("\n" * 250_000 + "x", False, False),
        ([IMAGE, {"type": "text", "text": "x"}], True, False),
        ("no such city\n", True, False),
    ],
)
def test_what_the_model_would_be_told_otherwise_does_not_pass(content: Any, is_error: bool, passes: bool) -> None:
    assert passes_unchanged(result("c1", content, is_error=is_error)) == passes
