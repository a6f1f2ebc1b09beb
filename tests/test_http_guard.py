"""Who may speak HTTP with a real daemon: its owner's processes, with the token on TCP; no other user, no web page."""

import hmac
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from daemon.frontends.guard import Guard
from runners.errors import NotAuthenticatedError
from tests.http_client import (
    CHATS,
    COUNT,
    MESSAGES,
    ON_TCP,
    RUNNERS,
    Answer,
    Headers,
    Http,
    ask,
    bearer,
    chat,
    http_socket,
    mode,
    tcp,
    token_file,
)
from tests.world import Daemon, Wire, World

NOBODY = 65534
PLACES = [
    *(("POST", path) for path in (*CHATS, COUNT)),
    *(("GET", path) for path in ("/v1/models", "/v1/models/echo:echo", "/healthz", "/readyz", "/readyz/echo")),
    ("GET", "/metrics"),
    ("GET", "/nowhere"),
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One that listens on TCP too."""
    world = World()
    try:
        with world.daemon(world.config(ON_TCP + RUNNERS)) as served:
            yield served
    finally:
        world.close()


def error_of(path: str, answer: Answer) -> dict[str, Any]:
    """The error of an answer, which must have the form of that path's API, and must let no web page read it."""
    assert answer.headers["content-type"] == "application/json"
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    body = answer.json
    if path.startswith(MESSAGES):
        assert body["type"] == "error"
    else:
        assert body.keys() == {"error"}
        assert {"message", "type", "param", "code"} <= body["error"].keys()
    assert isinstance(body["error"]["message"], str)
    error = body["error"]
    assert isinstance(error, dict)
    return error


def wrong_tokens(daemon: Daemon) -> list[Headers]:
    """Headers that hold no right token, most of them nearly."""
    right = token_file(daemon.world).read_text().strip()
    return [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {right}x"},
        {"Authorization": f"Bearer {right[:-1]}"},
        {"Authorization": f"Bearer x {right}"},
        {"Authorization": right},
        {"Authorization": f"Basic {right}"},
        {"Authorization": "Bearer \xff\xfe"},
        {"x-api-key": ""},
        {"x-api-key": f"{right}x"},
        {"x-api-key": right.swapcase()},
        {"X-Token": right},
        {"Cookie": f"token={right}"},
    ]


@pytest.mark.parametrize(("method", "path"), PLACES)
async def test_nothing_is_served_on_tcp_without_the_token(daemon: Daemon, method: str, path: str) -> None:
    for headers in wrong_tokens(daemon):
        answer = await ask(tcp(daemon), method, path, headers=headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), headers
        error = error_of(path, answer)
        assert error["type"] == "authentication_error"
        assert "token" in error["message"]
    assert (await ask(tcp(daemon), method, f"{path}?token=x&key=x")).status == 401


@pytest.mark.parametrize("scheme", ["Authorization: Bearer", "authorization: bearer", "x-api-key", "X-Api-Key"])
async def test_on_tcp_the_right_token_opens_every_door(daemon: Daemon, scheme: str) -> None:
    name, _, word = scheme.partition(": ")
    token = bearer(daemon)["Authorization"].removeprefix("Bearer ")
    headers = {name: f"{word} {token}".strip()}
    for path in (*CHATS, COUNT):
        assert (await ask(tcp(daemon), "POST", path, chat(path), headers)).status == 200
    for path in ("/v1/models", "/v1/models/echo:echo", "/healthz", "/readyz/echo", "/metrics"):
        assert (await ask(tcp(daemon), "GET", path, headers=headers)).status == 200


async def test_a_token_that_was_refused_may_be_sent_again_on_the_same_connection(daemon: Daemon) -> None:
    async with await Http.connect(tcp(daemon)) as client:
        for _ in range(2):
            assert (await client.ask("GET", "/healthz")).status == 401
            assert (await client.ask("GET", "/healthz", headers=bearer(daemon))).status == 200


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 43, 4000])
def test_the_token_is_compared_in_a_time_that_tells_nothing(length: int) -> None:
    # Times as short as these cannot be measured on a busy machine. What makes them equal can be seen: every token,
    # however long and however near to the right one, comes to `compare_digest`, and both sides of it are one length.
    token = "s" * 43
    guard = Guard(token)
    with socket.socket(socket.AF_INET) as connected:
        transport = mock.Mock(**{"get_extra_info.return_value": connected})
        for given in ("s" * length, "x" * length):
            headers = {"Host": "127.0.0.1", "x-api-key": given}
            request = make_mocked_request("GET", "/healthz", headers, transport=transport)
            with mock.patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compared:
                assert _is_let_in(guard, request) is (given == token)
            # Of the two headers that may bring one.
            assert [[len(side) for side in sides] for sides, _ in compared.call_args_list] == [[32, 32], [32, 32]]


def _is_let_in(guard: Guard, request: web.Request) -> bool:
    try:
        guard.check(request)
    except NotAuthenticatedError:
        return False
    return True


PAGES: list[dict[str, str]] = [
    {"Host": "rebound.example"},
    {"Host": "rebound.example:8765"},
    {"Host": "127.0.0.1.rebound.example"},
    {"Host": "localhost.rebound.example"},
    {"Host": "192.168.0.1"},
    {"Host": "0.0.0.0"},
    {"Host": "[::]"},
    {"Host": ""},
    {"Host": "127.0.0.1:port"},
    {"Origin": "https://page.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:8765"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("headers", PAGES, ids=str)
async def test_what_a_web_page_sends_is_refused_though_it_has_the_token(
    daemon: Daemon, headers: dict[str, str]
) -> None:
    for method, path in PLACES:
        answer = await ask(tcp(daemon), method, path, headers=headers | bearer(daemon))
        assert answer.status == 403
        assert error_of(path, answer)["type"] == "permission_error"


async def test_a_request_without_a_host_is_refused(daemon: Daemon) -> None:
    head = f"Authorization: {bearer(daemon)['Authorization']}"
    async with await Http.connect(tcp(daemon)) as client:
        await client.write(f"GET /healthz HTTP/1.0\r\n{head}\r\n\r\n".encode())
        assert (await client.answer()).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765", "127.1.2.3"])
async def test_every_name_of_this_machine_will_do(daemon: Daemon, host: str) -> None:
    assert (await ask(tcp(daemon), "GET", "/healthz", headers={"Host": host} | bearer(daemon))).status == 200


async def test_an_address_that_a_user_has_typed_into_a_browser_is_no_web_page_s(daemon: Daemon) -> None:
    headers = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"} | bearer(daemon)
    assert (await ask(tcp(daemon), "GET", "/healthz", headers=headers)).status == 200


@pytest.mark.parametrize("path", [*CHATS, COUNT, "/v1/models", "/metrics", "/nowhere", "*"])
async def test_a_browser_s_question_whether_it_may_is_answered_with_no(daemon: Daemon, path: str) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for headers in (
        {"Origin": "https://page.example", **asks},
        {"Origin": "https://page.example", **asks, **bearer(daemon)},
        {**asks, **bearer(daemon)},
        asks,
    ):
        answer = await ask(tcp(daemon), "OPTIONS", path, headers=headers)
        assert 400 <= answer.status < 500
        error_of(path, answer)
    error_of(path, await ask(http_socket(daemon), "OPTIONS", path, headers=asks))


async def test_no_answer_lets_a_web_page_read_it(daemon: Daemon) -> None:
    for path in CHATS:
        for stream in (False, True):
            answer = await ask(http_socket(daemon), "POST", path, chat(path, stream=stream), {"Origin": "null"})
            assert answer.status == 200
            assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_the_socket_is_its_owner_s_alone_and_asks_for_no_token(daemon: Daemon) -> None:
    path = http_socket(daemon)
    assert stat.S_ISSOCK(path.lstat().st_mode)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    for path_ in CHATS:
        assert (await ask(path, "POST", path_, chat(path_))).status == 200
    for path_ in ("/v1/models", "/healthz", "/readyz/echo", "/metrics"):
        assert (await ask(path, "GET", path_)).status == 200
    assert (await ask(path, "GET", "/healthz", headers={"Host": "whatever.example"})).status == 200


STRANGER = f"""
import os, socket, sys

os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
with socket.socket(socket.AF_UNIX) as stranger:
    stranger.settimeout(20)
    try:
        stranger.connect(sys.argv[1])
    except OSError as error:
        sys.exit(error.strerror)
    try:
        stranger.sendall(sys.argv[2].encode())
        while data := stranger.recv(65536):
            sys.stdout.buffer.write(data)
    except ConnectionError as error:
        sys.exit(error.strerror)
"""
REQUEST = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def stranger(path: Path, said: str) -> tuple[str, str]:
    """What another user of this machine is answered at a socket, and why not."""
    command = [sys.executable, "-ISc", STRANGER, str(path), said]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return done.stdout.decode(), done.stderr.decode().strip()


@pytest.mark.skipif(os.getuid() != 0, reason="ANOTHER USER IS NOT TESTED: only root can be somebody else")
@pytest.mark.parametrize("door", ["http.sock", "runnerd.sock"])
async def test_another_user_is_kept_out_by_the_directory_and_the_socket_and_by_who_it_is(
    world: World, door: str
) -> None:
    said = REQUEST if door == "http.sock" else '{"jsonrpc": "2.0", "id": 1, "method": "version"}\n'
    with world.daemon(world.config(RUNNERS)) as daemon:
        path = world.socket.with_name(door)
        # The test's own directories are no part of it.
        for above in (world.root, world.root / "run"):
            above.chmod(0o711)
        assert stranger(path, said) == ("", "Permission denied")
        path.parent.chmod(0o711)
        assert stranger(path, said) == ("", "Permission denied")
        path.chmod(0o666)
        answer, _ = stranger(path, said)
        if door == "http.sock":
            head, _, body = answer.partition("\r\n\r\n")
            assert head.startswith("HTTP/1.1 403 ")
            assert "another user" in body
            assert "pid" not in body
        else:
            assert answer == ""
            assert daemon.wait_for("connection.refused")["uid"] == NOBODY
        # Its owner is not concerned.
        assert (await ask(http_socket(daemon), "GET", "/healthz")).status == 200
        async with await Wire.connect(world.socket) as wire:
            assert (await wire.call("version"))["result"]["pid"] == daemon.process.pid


async def test_the_log_has_no_token(world: World) -> None:
    with world.daemon(world.config(ON_TCP + RUNNERS)) as daemon:
        secret = bearer(daemon)["Authorization"].removeprefix("Bearer ")
        lines = [f"Authorization: Bearer {secret}", f"Authorization : Bearer {secret}", f"x-api-key: {secret}\x00"]
        for line in lines:
            async with await Http.connect(tcp(daemon)) as client:
                await client.write(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}\r\n\r\n".encode())
                await client.answer()
    assert secret not in str(daemon.log)
