"""What the socket answers to lines that are no requests, or no good ones."""

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.world import END_S, Daemon, Wire, World, user

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602


@pytest.fixture
async def wire(daemon: Daemon) -> AsyncIterator[Wire]:
    async with await Wire.connect(daemon.world.socket) as connected:
        yield connected
        assert "result" in await connected.call("version"), "the connection is of no use any more"


async def answer_to(wire: Wire, line: bytes) -> tuple[int, Any]:
    """The code and the id of the error that a line gets."""
    await wire.send(line + b"\n")
    answer = await wire.read()
    assert list(answer) == ["jsonrpc", "id", "error"]
    assert answer["error"]["message"]
    return answer["error"]["code"], answer["id"]


@pytest.mark.parametrize(
    "line",
    [b"{", b"nonsense", b'{"a": 1}}', b'{"a" 1}', b'"open', b"\xff\xfe", b'{"a": "\xff"}', b"\x00", b"[" * 100_000],
    ids=lambda line: repr(line[:12]),
)
async def test_a_line_that_is_no_json_is_a_parse_error(wire: Wire, line: bytes) -> None:
    assert await answer_to(wire, line) == (PARSE_ERROR, None)


@pytest.mark.parametrize(
    "line", [b"[]", b'[{"jsonrpc": "2.0", "id": 1, "method": "version"}]', b"1", b'"version"', b"null", b"true"]
)
async def test_what_is_no_object_is_an_invalid_request_and_so_is_a_batch(wire: Wire, line: bytes) -> None:
    assert await answer_to(wire, line) == (INVALID_REQUEST, None)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"id": 9},
        {"id": 9, "method": "version"},
        {"id": 9, "method": "version", "jsonrpc": "1.0"},
        {"id": 9, "method": "version", "jsonrpc": 2.0},
        {"id": 9, "jsonrpc": "2.0"},
        {"id": 9, "jsonrpc": "2.0", "method": None},
        {"id": 9, "jsonrpc": "2.0", "method": ["version"]},
    ],
    ids=json.dumps,
)
async def test_a_message_without_its_version_or_its_method_is_an_invalid_request(
    wire: Wire, message: dict[str, Any]
) -> None:
    assert await answer_to(wire, json.dumps(message).encode()) == (INVALID_REQUEST, message.get("id"))


@pytest.mark.parametrize("request_id", [None, True, 1.5, [], [1], {}, {"a": 1}], ids=repr)
async def test_an_id_that_is_neither_text_nor_a_whole_number_is_an_invalid_request(wire: Wire, request_id: Any) -> None:
    message = {"jsonrpc": "2.0", "id": request_id, "method": "version"}
    assert await answer_to(wire, json.dumps(message).encode()) == (INVALID_REQUEST, None)


async def test_an_id_that_is_still_in_flight_is_an_invalid_request_and_the_first_one_goes_on(wire: Wire) -> None:
    held = await wire.request("chat", model="held", messages=user("Hi"))
    while "method" in (message := await wire.read()) and message["params"]["chunk"]["type"] != "text":
        pass
    line = json.dumps({"jsonrpc": "2.0", "id": held, "method": "version"}).encode()
    assert await answer_to(wire, line) == (INVALID_REQUEST, held)
    await wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": held}})
    assert (await wire.read())["error"]["data"]["kind"] == "cancelled"


@pytest.mark.parametrize("method", ["Chat", "chat ", "", "\ud83d", "__init__", "rpc.discover"])
async def test_an_unknown_method_is_not_found(wire: Wire, method: str) -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": 9, "method": method}).encode()
    assert await answer_to(wire, line) == (METHOD_NOT_FOUND, 9)


@pytest.mark.parametrize("params", [[], ["echo"], "echo", 1, None], ids=repr)
async def test_params_that_are_no_object_are_invalid(wire: Wire, params: Any) -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": 9, "method": "chat", "params": params}).encode()
    assert await answer_to(wire, line) == (INVALID_PARAMS, 9)


def parts(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def ask(**fields: Any) -> dict[str, Any]:
    return {"messages": user("Hi")} | fields


WRONG = [
    ({}, "messages"),
    ({"messages": 5}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": ["Hi"]}, "messages[0]"),
    ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": {"text": "Hi"}}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [*user("Hi"), parts({"type": "text", "text": 5})["messages"][0]]}, "messages[1].content[0].text"),
    (parts({"type": "text"}), "messages[0].content[0].text"),
    (parts({"type": "text", "text": "Hi"}, "Hi"), "messages[0].content[1]"),
    (parts({"type": "video", "data": ""}), "messages[0].content[0].type"),
    (parts({"type": "image", "media_type": "image/png"}), "messages[0].content[0].data"),
    (parts({"type": "image", "media_type": "image/png", "data": "no base64"}), "messages[0].content[0].data"),
    (parts({"type": "image", "media_type": "image/bmp", "data": "AA=="}), "messages[0].content[0].media_type"),
    ({"messages": [{"role": "user", "content": "Hi", "timestamp": {}}]}, "messages[0].timestamp"),
    ({"messages": [{"role": "tool", "content": "18 degrees"}]}, "messages[0]"),
    ({"messages": [{"role": "user", "tool_calls": [{"id": "c1", "name": "f"}]}]}, "messages[0]"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c1"}]}]}, "messages[0].tool_calls[0].name"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c1", "name": "f", "arguments": "{}"}]}]},
        "messages[0].tool_calls[0].arguments",
    ),
    (ask(tools=[{"description": "?"}]), "tools[0].name"),
    (ask(tools=[{"name": "f"}, {"name": "g", "parameters": []}]), "tools[1].parameters"),
    (ask(tool_choice=5), "tool_choice"),
    (ask(model=5), "model"),
    (ask(temperature="hot"), "temperature"),
    (ask(temperature=3), "temperature"),
    (ask(top_p=0), "top_p"),
    (ask(max_tokens=0), "max_tokens"),
    (ask(max_tokens="5"), "max_tokens"),
    (ask(stop=["a", 1]), "stop[1]"),
    (ask(stop=5), "stop"),
    (ask(reasoning_effort="enormous"), "reasoning_effort"),
    (ask(response_format={"type": "xml"}), "response_format.type"),
    (ask(strict="yes"), "strict"),
    (ask(stream=1), "stream"),
]


@pytest.mark.parametrize(("params", "path"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
async def test_a_wrong_field_is_named_by_its_path(wire: Wire, params: dict[str, Any], path: str) -> None:
    error = (await wire.call("chat", **params))["error"]
    assert error["code"] == INVALID_PARAMS
    assert error["message"].startswith(f"params.{path}: ")
    assert error["data"]["fields"][0]["path"] == path
    assert error["data"]["fields"][0]["message"]


async def test_every_wrong_field_is_named_at_once(wire: Wire) -> None:
    error = (await wire.call("chat", messages=[{"role": "robot"}], temperature="hot", model=5))["error"]
    paths = {field["path"] for field in error["data"]["fields"]}
    assert paths == {"messages[0].role", "temperature", "model"}


async def test_very_many_wrong_fields_get_a_short_answer(wire: Wire) -> None:
    answer = await wire.call("chat", messages=[0] * 20_000)
    assert answer["error"]["code"] == INVALID_PARAMS
    assert len(json.dumps(answer)) < 100_000


@pytest.mark.parametrize(("params", "path"), [({"runner": 5}, "runner"), ({"deep": "yes"}, "deep")])
async def test_wrong_fields_of_health_are_named_too(wire: Wire, params: dict[str, Any], path: str) -> None:
    error = (await wire.call("health", **params))["error"]
    assert (error["code"], error["data"]["fields"][0]["path"]) == (INVALID_PARAMS, path)


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b"  \t\n", b"\n\n\n"], ids=repr)
async def test_blank_lines_are_ignored(wire: Wire, blank: bytes) -> None:
    await wire.send(blank)
    answer = await wire.call("version")
    assert "result" in answer


@pytest.mark.parametrize("blank", [b" ", b"\r", b"\n \t"], ids=repr)
async def test_a_blank_line_is_ignored_at_the_end_of_a_client_s_input_too(daemon: Daemon, blank: bytes) -> None:
    async with await Wire.connect(daemon.world.socket) as client:
        await client.send(blank)
        client.writer.write_eof()
        assert await client.reader.read() == b""


@pytest.mark.parametrize(
    "notification",
    [
        {"method": "version"},
        {"method": "nonsense"},
        {"method": "chat", "params": {"model": "echo", "messages": user("Hi")}},
        {"method": "chat", "params": {"messages": 5}},
        {"method": "chat", "params": ["echo"]},
    ],
    ids=json.dumps,
)
async def test_a_notification_is_not_answered(wire: Wire, notification: dict[str, Any]) -> None:
    await wire.send({"jsonrpc": "2.0"} | notification)
    await wire.send({"jsonrpc": "2.0", "id": "the next", "method": "version"})
    assert (await wire.read())["id"] == "the next"


@pytest.mark.parametrize(
    "params", [{}, {"id": 99}, {"id": None}, {"id": "99"}, {"id": 1.5}, {"id": []}, {"id": {}}, {"ID": 1}], ids=repr
)
async def test_a_cancel_of_what_is_no_request_is_ignored(wire: Wire, params: dict[str, Any]) -> None:
    await wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": params})
    await wire.send({"jsonrpc": "2.0", "id": "the next", "method": "version"})
    assert (await wire.read())["id"] == "the next"


async def test_a_cancel_that_is_sent_as_a_request_is_answered_like_every_request(daemon: Daemon) -> None:
    async with await Wire.connect(daemon.world.socket) as client:
        await client.send({"jsonrpc": "2.0", "id": "me", "method": "$/cancelRequest", "params": {"id": 99}})
        client.writer.write_eof()
        assert (await client.read())["id"] == "me"


def read_to_end(client: socket.socket) -> list[dict[str, Any]]:
    """Every message until the daemon closes the connection."""
    received = bytearray()
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass  # it closed while some of what we had sent was unread
    return [json.loads(line) for line in received.splitlines()]


@pytest.mark.parametrize("ended", [True, False], ids=["whole", "without its end"])
def test_a_line_over_the_cap_ends_its_connection_and_no_other(world: World, ended: bool) -> None:
    config = world.config("daemon: {parse_cap_bytes: 4096}\nrunners: {echo: {kind: echo}}\n")
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "chat", "params": ask(model="echo")}).encode() + b"\n"
    with world.daemon(config), socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        for connection in (other, client):
            connection.settimeout(END_S)
            connection.connect(str(world.socket))
        other.sendall(request[:20])
        client.sendall(b"x" * 5000 + b"\n" * ended)
        [answer] = read_to_end(client)
        other.sendall(request[20:])
        other.shutdown(socket.SHUT_WR)
        last = read_to_end(other)[-1]
    assert (answer["id"], answer["error"]["code"]) == (None, -32010)
    assert answer["error"]["data"]["kind"] == "line_too_long"
    assert "4096" in answer["error"]["message"]
    assert last["result"]["content"] == "Hi"
