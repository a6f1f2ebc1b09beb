"""JSON-RPC with real children, over lines and over headers: calls both ways, strays, ends of every kind."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from runners.errors import LineTooLongError, ProcessExitedError, RunnerError
from runners.wire.framing import Framer, HeaderFramer, LineFramer
from runners.wire.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, Answer, Peer, RpcError, RpcProcess
from tests.world import END_S, World

pytestmark = pytest.mark.usefixtures("no_leaks")

T = TypeVar("T")

FRAMERS: dict[str, Callable[[int], Framer]] = {"lines": LineFramer, "headers": HeaderFramer}
CAP_BYTES = 64 * 1024 * 1024
ODD_TEXT = 'é\u2028\u2029\u0085😀\r\n\t\0 Content-Length: 3\r\n\r\n{}"'
BIG = "x" * 8_000_000
"""More than a pipe and the buffers before it hold."""

_CHILD = r"""
import json, os, select, signal, sys

HEADERS = sys.argv[1] == "headers"
stdin, stdout = open(0, "rb"), open(1, "wb", buffering=0)

def raw(data):
    while data:
        data = data[stdout.write(data):]

def framed(body):
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body) if HEADERS else body + b"\n"

def frame(message):
    return framed(json.dumps(message, ensure_ascii=False).encode())

def message(**members):
    return frame({"jsonrpc": "2.0"} | members)

def send(**members):
    raw(message(**members))

def read():
    if not HEADERS:
        line = stdin.readline()
        assert line.endswith(b"\n") or not line
        return json.loads(line) if line else None
    header = stdin.readline()
    if not header:
        return None
    name, length = header.split(b": ")
    assert (name, stdin.readline()) == (b"Content-Length", b"\r\n")
    return json.loads(stdin.read(int(length)))

def messages():
    while (read_now := read()) is not None:
        assert read_now["jsonrpc"] == "2.0"
        yield read_now

def deaf():
    while True:
        signal.pause()

"""
"""What every child begins with: it speaks by the framing that its argument names."""

_ECHO = """
for m in messages():
    if "id" in m:
        send(id=m["id"], result=m["params"])
    else:
        send(method=m["method"], params=m["params"])
"""

_SAYS_WHAT_IT_IS_ANSWERED = """
send(id="mine", method="ask", params={})
for m in messages():
    send(method="answered", params=m)
"""

_STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
send(method="ready", params={})
deaf()
"""


@pytest.fixture(params=sorted(FRAMERS))
def framing(request: pytest.FixtureRequest) -> str:
    """Each way of cutting a stream into messages."""
    name: str = request.param
    return name


class Child:
    """A child under test: its RpcProcess, what it told us, and the errors that `gone` was called with."""

    def __init__(self) -> None:
        self.rpc: RpcProcess
        self.gone: list[RunnerError] = []
        self.is_gone = asyncio.Event()
        self._heard: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    @property
    def peer(self) -> Peer:
        return self.rpc.peer

    async def call(self, method: str = "call", **params: Any) -> Any:
        return await soon(self.rpc.peer.call(method, params))

    async def hears(self) -> tuple[str, dict[str, Any]]:
        """The next notification."""
        return await soon(self._heard.get())

    def take_heard(self) -> list[tuple[str, dict[str, Any]]]:
        """What it told us and nobody has read yet."""
        return [self._heard.get_nowait() for _ in range(self._heard.qsize())]

    def hear(self, method: str, params: dict[str, Any]) -> None:
        self._heard.put_nowait((method, params))


async def soon(awaitable: Awaitable[T]) -> T:
    """Its result; fails when that takes too long."""
    async with asyncio.timeout(END_S):
        return await awaitable


async def no_answer(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
    raise RpcError(METHOD_NOT_FOUND, f"there is no {method}")


@asynccontextmanager
async def running(
    world: World,
    framing: str,
    program: str,
    *,
    answer: Answer = no_answer,
    heard: Callable[[str, dict[str, Any]], None] | None = None,
    gone: Callable[[RunnerError], None] = lambda _: None,
    cap_bytes: int = CAP_BYTES,
) -> AsyncIterator[Child]:
    """A child that runs `program`; closed at the end, when `gone` must have been called once."""
    child = Child()

    def see_gone(error: RunnerError) -> None:
        child.gone.append(error)
        child.is_gone.set()
        gone(error)

    child.rpc = await RpcProcess.spawn(
        [sys.executable, "-IS", "-c", _CHILD + program, framing],
        env=world.env,
        cwd=world.root,
        answer=answer,
        heard=heard or child.hear,
        gone=see_gone,
        framer=FRAMERS[framing](cap_bytes),
    )
    try:
        yield child
    finally:
        # First, for a test that failed: whatever became of the peer, its process must not stay.
        await child.rpc.cli.aclose(ask=False)
        await soon(asyncio.wait([child.rpc.close()]))
    child.rpc.close().result()
    assert len(child.gone) == 1


# Calls, answers and notifications


async def test_both_ends_call_each_other_at_once_under_the_same_ids(world: World, framing: str) -> None:
    async def double(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
        assert method == "double"
        return 2 * params["n"]

    program = """
for m in messages():
    if "method" in m:
        send(id=m["id"], method="double", params=m["params"])
    else:
        send(id=m["id"], result=m["result"] + 1)
"""
    async with running(world, framing, program, answer=double) as child:
        results = await asyncio.gather(*(child.call(n=n) for n in range(100)))
        assert results == [2 * n + 1 for n in range(100)]
        assert not child.peer.requests
        assert child.rpc.stray_frames == 0


async def test_calls_in_flight_are_answered_in_any_order(world: World, framing: str) -> None:
    program = """
asked = [read() for _ in range(200)]
raw(b"".join(message(id=m["id"], result=m["params"]["n"]) for m in reversed(asked)))
"""
    done: list[int] = []

    async def call(child: Child, number: int) -> None:
        assert await child.call(n=number) == number
        done.append(number)

    async with running(world, framing, program) as child:
        await asyncio.gather(*(call(child, number) for number in range(200)))
        assert done == list(reversed(range(200)))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"error": {"code": -32001, "message": "no", "data": {"why": ["é"]}}}, (-32001, "no", {"why": ["é"]})),
        ({"error": {"code": 7, "message": "no data"}}, (7, "no data", None)),
        ({"error": {}}, (0, "", None)),
        ({"error": {"code": "E42", "message": None}}, (0, "None", None)),
        ({"error": "in words"}, (0, "in words", None)),
    ],
)
async def test_an_error_reply_is_an_rpc_error(
    world: World, framing: str, reply: dict[str, Any], expected: tuple[int, str, Any]
) -> None:
    program = 'for m in messages(): send(id=m["id"], **m["params"])'
    async with running(world, framing, program) as child:
        with pytest.raises(RpcError) as caught:
            await child.call(**reply)
        assert (caught.value.code, str(caught.value), caught.value.data) == expected
        assert await child.call(result="still there") == "still there"


async def test_a_result_of_null_is_a_result(world: World, framing: str) -> None:
    async with running(world, framing, 'for m in messages(): send(id=m["id"], result=None)') as child:
        assert await child.call() is None


async def test_notifications_keep_their_order_both_ways(world: World, framing: str) -> None:
    async with running(world, framing, _ECHO) as child:
        for number in range(500):
            await child.peer.notify("count", {"n": number})
        assert [await child.hears() for _ in range(500)] == [("count", {"n": number}) for number in range(500)]


async def test_what_was_told_before_an_answer_is_heard_before_it(world: World, framing: str) -> None:
    program = """
for m in messages():
    raw(b"".join(message(method="step", params={"n": n}) for n in range(300)) + message(id=m["id"], result="done"))
"""
    async with running(world, framing, program) as child:
        assert await child.call() == "done"
        assert child.take_heard() == [("step", {"n": number}) for number in range(300)]


async def test_text_is_sent_and_read_as_it_is(world: World, framing: str) -> None:
    async with running(world, framing, _ECHO) as child:
        for text in (ODD_TEXT, "😀" * 100_000):
            assert await child.call(text=text) == {"text": text}
        assert child.rpc.stray_frames == 0


async def test_a_lone_surrogate_passes_both_ways(world: World, framing: str) -> None:
    program = (
        'for m in messages(): raw(framed(json.dumps({"jsonrpc": "2.0", "id": 1, "result": m["params"]}).encode()))'
    )
    async with running(world, framing, program) as child:
        assert await child.call(text="\ud83d") == {"text": "\ud83d"}


async def test_a_message_larger_than_the_pipe_passes_both_ways(world: World, framing: str) -> None:
    async with running(world, framing, _ECHO) as child:
        assert await child.call(text=BIG) == {"text": BIG}


# The child's own requests


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_request_of_the_child_ends_when_the_child_cancels_it(world: World, framing: str, at_once: bool) -> None:
    program = f"""
request = message(id="mine", method="hold", params={{}})
cancel = message(method="$/cancelRequest", params={{"id": "mine"}})
unknown = message(method="$/cancelRequest", params={{"id": "nobody's"}})
if {at_once}:
    raw(request + unknown + cancel)
else:
    raw(request)
    assert read()["method"] == "it is held"
    raw(unknown + cancel)
send(method="answered", params=read())
send(id="mine", method="again", params={{}})
send(method="answered", params=read())
"""

    async def answer(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
        if method == "again":
            return "the id is free"
        try:
            await child.peer.notify("it is held", {}) if not at_once else None
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RpcError(-32800, "cancelled") from None

    async with running(world, framing, program, answer=answer) as child:
        error = {"code": -32800, "message": "cancelled"}
        assert await child.hears() == ("answered", {"jsonrpc": "2.0", "id": "mine", "error": error})
        assert await child.hears() == ("answered", {"jsonrpc": "2.0", "id": "mine", "result": "the id is free"})


async def test_a_cancelled_request_is_answered_also_when_its_answer_only_ends(world: World, framing: str) -> None:
    program = """
send(id="mine", method="hold", params={})
send(method="$/cancelRequest", params={"id": "mine"})
send(id="next", method="next", params={})
while len(seen := globals().setdefault("answers", [])) < 2:
    m = read()
    seen.append(m)
    send(method="answered", params={"id": m["id"]})
"""

    async def answer(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
        if method == "hold":
            await asyncio.Event().wait()

    async with running(world, framing, program, answer=answer) as child:
        answered = {(await child.hears())[1]["id"], (await child.hears())[1]["id"]}
        assert answered == {"mine", "next"}


async def test_an_rpc_error_of_ours_is_the_childs_answer(world: World, framing: str) -> None:
    async def answer(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
        raise RpcError(-1, f"{request_id} {method}", {"é": 1})

    async with running(world, framing, _SAYS_WHAT_IT_IS_ANSWERED, answer=answer) as child:
        error = {"code": -1, "message": "mine ask", "data": {"é": 1}}
        assert await child.hears() == ("answered", {"jsonrpc": "2.0", "id": "mine", "error": error})


async def _fails(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
    raise KeyError("a secret")


async def _returns_what_has_no_json_form(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
    return object()


@pytest.mark.parametrize("bug", [_fails, _returns_what_has_no_json_form])
async def test_a_bug_in_our_answer_is_told_to_the_child_and_logged(
    world: World, framing: str, bug: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(world, framing, _SAYS_WHAT_IT_IS_ANSWERED, answer=bug) as child:
        _, answer = await child.hears()
        assert (answer["id"], answer["error"]["code"]) == ("mine", INTERNAL_ERROR)
        assert "secret" not in str(answer)
        assert [(record.name, record.exc_info is not None) for record in caplog.records] == [
            ("runners.wire.jsonrpc", True)
        ]
        assert "ask" in caplog.records[0].getMessage()


async def test_a_broken_connection_of_our_answers_own_is_no_reason_to_stay_silent(world: World, framing: str) -> None:
    async def answer(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
        raise ConnectionRefusedError("some other service")

    async with running(world, framing, _SAYS_WHAT_IT_IS_ANSWERED, answer=answer) as child:
        _, answered = await child.hears()
        assert (answered["id"], answered["error"]["code"]) == ("mine", INTERNAL_ERROR)


async def test_a_bug_in_what_hears_notifications_ends_no_call(
    world: World, framing: str, caplog: pytest.LogCaptureFixture
) -> None:
    def heard(method: str, params: dict[str, Any]) -> None:
        raise KeyError(method)

    program = 'for m in messages(): raw(message(method="tell", params={}) + message(id=m["id"], result=1))'
    async with running(world, framing, program, heard=heard) as child:
        assert await child.call() == 1
        assert await child.call() == 1
        assert "tell" in caplog.text


async def test_a_request_that_cannot_be_served_is_answered(world: World, framing: str) -> None:
    program = 'send(id="mine", method="ask", params=[1, 2])\nsend(method="answered", params=read())'
    async with running(world, framing, program) as child:
        _, answer = await child.hears()
        assert (answer["id"], answer["error"]["code"]) == ("mine", INVALID_PARAMS)


# What is no message

_STRAYS = {
    "a line": (r'b"Warning: something\n"', 1, 1),
    "a banner": (r'b"\n  *** The CLI 1.0 ***\r\n\r\n  at your service\n\n"', 5, 2),
    "blank lines": (r'b"\n\r\n  \n"', 3, 0),
    "bytes that are no UTF-8": (r'b"\xff\xfe\n"', 1, 1),
    "a line of JSON that is no object": (r'b"[1]\n12\n"', 2, 2),
    "an object that is no JSON-RPC": (r'frame({"level": "info", "id": 1, "result": 2})', 1, 1),
    "another version": (r'frame({"jsonrpc": "1.0", "id": 1, "result": 2})', 1, 1),
    "a batch": (r'frame([{"jsonrpc": "2.0", "id": 1, "result": 2}])', 1, 1),
    "no message in a frame": (r'framed(b"nonsense") + framed(b"")', 2, 2),
    "a response that nobody waits for": (r'message(id=99, result=1) + message(id="1", result=2)', 2, 2),
    "a response to no id": (r'message(id=None, error={"code": -32700, "message": "what?"})', 1, 1),
    "a response to true": (r"message(id=True, result=3)", 1, 1),
}


@pytest.mark.parametrize("stray", _STRAYS)
async def test_what_is_no_message_is_skipped_and_counted(
    world: World, framing: str, stray: str, caplog: pytest.LogCaptureFixture
) -> None:
    expression, of_lines, of_headers = _STRAYS[stray]
    program = f"""
stray = {expression}
raw(stray)
for m in messages():
    raw(stray + message(id=m["id"], result=m["params"]) + stray)
"""
    expected = of_headers if framing == "headers" else of_lines
    async with running(world, framing, program) as child:
        for number in range(3):
            assert await child.call(n=number) == {"n": number}
        # Behind the third answer one more stray may still be on its way.
        assert 6 * expected <= child.rpc.stray_frames <= 7 * expected
        assert not child.gone
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == min(expected, 1)
    assert "something" not in caplog.text


@pytest.mark.parametrize(
    "text", ["Loading... ", "done", "50% 100% ", "\x1b[2K\r", "Content-Length: ", "Content-Length"]
)
async def test_a_text_on_the_line_of_a_header_is_skipped_and_counted(world: World, text: str) -> None:
    program = f"""
for m in messages():
    raw({text.encode()!r} + message(id=m["id"], result=m["params"]))
"""
    async with running(world, "headers", program) as child:
        assert [await child.call(n=number) for number in range(3)] == [{"n": number} for number in range(3)]
        assert child.rpc.stray_frames == 3


@pytest.mark.parametrize(
    "header",
    [
        "content-length: {}\r\n\r\n",
        "CONTENT-LENGTH: {}\r\n\r\n",
        "Content-Length:{}\r\n\r\n",
        "Content-Length:   {}  \r\n\r\n",
        "Content-Length: {}\n\n",
        "Content-Length: 00{}\r\n\r\n",
        "Content-Length: {}\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n",
        "Content-Length: {}\r\nX-One: 1\r\nX-Two: 2\r\n\r\n",
    ],
)
async def test_a_header_is_understood_in_every_form(world: World, header: str) -> None:
    program = f"""
for m in messages():
    body = json.dumps({{"jsonrpc": "2.0", "id": m["id"], "result": m["params"]}}, ensure_ascii=False).encode()
    raw({header!r}.format(len(body)).encode() + body)
"""
    async with running(world, "headers", program) as child:
        assert [await child.call(n=ODD_TEXT) for _ in range(3)] == [{"n": ODD_TEXT}] * 3
        assert child.rpc.stray_frames == 0


async def test_headers_may_stand_before_the_length_too(world: World) -> None:
    program = r"""
for m in messages():
    raw(b"Content-Type: application/json\r\n" + message(id=m["id"], result=m["params"]))
"""
    async with running(world, "headers", program) as child:
        assert [await child.call(n=number) for number in range(3)] == [{"n": number} for number in range(3)]


async def test_a_frame_that_comes_byte_by_byte_is_whole(world: World, framing: str) -> None:
    program = """
for m in messages():
    for byte in b"stray" + (b"" if HEADERS else b"\\n") + message(id=m["id"], result=m["params"]):
        raw(bytes([byte]))
"""
    async with running(world, framing, program) as child:
        assert await child.call(text=ODD_TEXT) == {"text": ODD_TEXT}
        assert child.rpc.stray_frames == 1


# The end of the child

_ENDS = {
    "it exits": ('print("my last words", file=sys.stderr); sys.exit(3)', 3, "my last words"),
    "it is killed": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, None),
    "it ends well": ("sys.exit()", 0, None),
    "it exits inside a frame": (
        'raw(message(id=1, result="x" * 99)[:-9]); os.write(2, "é".encode() + bytes(1)); os._exit(4)',
        4,
        "é\0",
    ),
}


@pytest.mark.parametrize("end", _ENDS)
async def test_when_the_child_ends_every_call_fails_and_says_how(world: World, framing: str, end: str) -> None:
    statement, exit_code, stderr_tail = _ENDS[end]
    program = f"for _ in range(10): read()\nsend(method='seen', params={{}})\n{statement}"
    async with running(world, framing, program) as child:
        calls = [asyncio.create_task(child.call(n=number)) for number in range(10)]
        errors: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        assert await child.hears() == ("seen", {})
        with pytest.raises(ProcessExitedError) as later:
            await child.call()
        with pytest.raises(ProcessExitedError) as told:
            await child.peer.notify("news", {})
        await soon(child.is_gone.wait())
        for error in (*errors, later.value, told.value, *child.gone):
            assert isinstance(error, ProcessExitedError)
            assert (error.exit_code, error.stderr_tail) == (exit_code, stderr_tail)
        assert len(set(map(id, errors))) == len(errors), "who raises an error writes its traceback into it"
        await child.rpc.close()
        with pytest.raises(ProcessExitedError):
            await child.call()
    assert len(child.gone) == 1


async def test_what_the_child_answered_before_its_end_still_counts(world: World, framing: str) -> None:
    program = """
asked = [read() for _ in range(50)]
raw(b"".join(message(id=m["id"], result=1) for m in asked[:49]))
sys.exit(3)
"""
    async with running(world, framing, program) as child:
        calls = [asyncio.create_task(child.call()) for _ in range(50)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:49] == [1] * 49
        assert isinstance(results[49], ProcessExitedError)


async def test_a_child_that_closes_its_output_and_stays_is_of_no_use(world: World, framing: str) -> None:
    async with running(world, framing, "read()\nstdout.close()\ndeaf()") as child:
        with pytest.raises(ProcessExitedError, match="still running") as caught:
            await child.call()
        assert caught.value.exit_code is None
        await soon(child.is_gone.wait())


async def test_calls_that_are_still_being_sent_fail_with_the_others(world: World, framing: str) -> None:
    # It reads nothing, and what it says is nothing that can be read on.
    end = 'raw(b"z" * 5000)\ndeaf()'
    program = f"select.select([0], [], [])\n{end}"
    async with running(world, framing, program, cap_bytes=4096) as child:
        call = asyncio.create_task(child.peer.call("big", {"text": BIG}))
        await soon(child.is_gone.wait())
        done, _ = await asyncio.wait([call], timeout=END_S / 2)
        call.cancel()
        await asyncio.wait([call])
        assert done, "the call still waits for a child that is gone"
        assert isinstance(call.exception(), LineTooLongError)


@pytest.mark.parametrize("start", ["an endless frame", "a whole frame"])
async def test_a_frame_over_the_cap_fails_the_calls(world: World, framing: str, start: str) -> None:
    too_long = message = 'framed(b"z" * 5000)'
    if start == "an endless frame":
        message = f"{too_long}[:-1]"
    program = f'for _ in range(3): read()\nraw(frame("before") + {message})\ndeaf()'
    async with running(world, framing, program, cap_bytes=4096) as child:
        errors = await asyncio.gather(*(child.call() for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in errors] == [LineTooLongError] * 3
        assert "cap of 4096" in str(errors[0])
        with pytest.raises(LineTooLongError):
            await child.call()
        assert child.rpc.stray_frames == 1
        assert [type(error) for error in child.gone] == [LineTooLongError]


# A child that does not read, one that does not stop, and calls that are given up


async def test_a_child_that_does_not_read_is_heard_all_the_same(world: World, framing: str) -> None:
    program = """
for n in range(8):
    send(id=n, method="big", params={})
for n in range(3000):
    send(method="count", params={"n": n})
deaf()
"""

    async def answer(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
        return BIG

    async with running(world, framing, program, answer=answer) as child:
        assert [await child.hears() for _ in range(3000)] == [("count", {"n": number}) for number in range(3000)]
        assert len(child.peer.requests) == 8
        call = asyncio.create_task(child.call(text=BIG))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await soon(asyncio.shield(child.rpc.close()))
        assert not child.peer.requests


async def test_a_child_that_does_not_read_is_heard_also_when_it_asks_to_cancel(world: World, framing: str) -> None:
    program = """
send(id=1, method="big", params={})
select.select([0], [], [])
send(id=2, method="$/cancelRequest", params={"id": 3})
send(method="heard", params={})
deaf()
"""

    async def answer(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
        return BIG

    async with running(world, framing, program, answer=answer) as child:
        assert await child.hears() == ("heard", {})


async def test_a_flood_of_notifications_leaves_calls_their_turn(world: World, framing: str) -> None:
    program = """
n = 0
while True:
    raw(b"".join(message(method="count", params={"n": n + step}) for step in range(1000)))
    n += 1000
    if select.select([0], [], [], 0)[0]:
        m = read()
        if m is None:
            break
        send(id=m["id"], result=n)
"""
    next_number = 0

    def heard(method: str, params: dict[str, Any]) -> None:
        nonlocal next_number
        assert params == {"n": next_number}
        next_number += 1

    async with running(world, framing, program, heard=heard) as child:
        told_before = 0
        for _ in range(5):
            told = await child.call()
            assert told_before < told <= next_number
            told_before = told
        assert child.rpc.stray_frames == 0
        # The flood goes on, and the child still leaves by itself.
        await soon(asyncio.shield(child.rpc.close()))
        assert child.rpc.cli.returncode == 0


async def test_a_cancelled_call_leaves_the_others_and_its_late_answer_is_skipped(world: World, framing: str) -> None:
    program = """
held = read()
send(method="held", params={})
for m in messages():
    raw(message(id=held["id"], result="late") + message(id=m["id"], result="in time"))
"""
    async with running(world, framing, program) as child:
        call = asyncio.create_task(child.call())
        assert await child.hears() == ("held", {})
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert await child.call() == "in time"
        assert child.rpc.stray_frames == 1
        assert await child.call() == "in time"


async def test_a_call_with_a_time_limit_of_its_own_can_be_made_again(world: World, framing: str) -> None:
    async with running(world, framing, 'read()\nfor m in messages(): send(id=m["id"], result=1)') as child:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await child.peer.call("call", {})
        assert await child.call() == 1


async def test_a_call_that_has_no_json_form_leaves_the_peer_usable(world: World, framing: str) -> None:
    async with running(world, framing, _ECHO) as child:
        with pytest.raises(TypeError):
            await child.call(thing=object())
        assert await child.call(thing=1) == {"thing": 1}


# The end that we make


async def test_closing_ends_what_runs_either_way_and_closing_again_is_nothing(world: World, framing: str) -> None:
    program = """
send(id="mine", method="hold", params={})
read()
send(method="called", params={})
sys.exit(5 if read() is None else 1)
"""
    ended: list[str | int] = []

    async def answer(request_id: str | int, method: str, params: dict[str, Any]) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request_id)

    async with running(world, framing, program, answer=answer) as child:
        call = asyncio.create_task(child.call())
        assert await child.hears() == ("called", {})
        await soon(asyncio.gather(child.rpc.close(), child.rpc.close(ask=False)))
        await child.rpc.close()
        with pytest.raises(ProcessExitedError) as caught:
            await call
        assert caught.value.exit_code == 5
        assert ended == ["mine"]
        assert len(child.gone) == 1
        with pytest.raises(ProcessExitedError):
            await child.call()


async def test_a_child_that_ignores_everything_is_killed_in_bounded_time(world: World, framing: str) -> None:
    async with running(world, framing, _STUBBORN) as child:
        assert await child.hears() == ("ready", {})
        calls = [asyncio.create_task(child.call(text=text)) for text in ("small", BIG)]
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await child.rpc.close()
        for call in calls:
            with pytest.raises(ProcessExitedError) as caught:
                await call
            assert caught.value.exit_code == -signal.SIGKILL


async def test_closing_goes_on_when_who_waits_for_it_is_cancelled(world: World, framing: str) -> None:
    async def close() -> None:
        await asyncio.shield(child.rpc.close())

    async with running(world, framing, _STUBBORN) as child:
        assert await child.hears() == ("ready", {})
        call, closing = asyncio.create_task(child.call()), asyncio.create_task(close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        await soon(child.rpc.close())
        assert child.rpc.cli.returncode == -signal.SIGKILL
        with pytest.raises(ProcessExitedError):
            await call


async def test_closing_can_be_waited_for_again_when_the_first_to_wait_was_cancelled(world: World, framing: str) -> None:
    async with running(world, framing, _STUBBORN) as child:
        assert await child.hears() == ("ready", {})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await child.rpc.close()
        await soon(child.rpc.close())
        assert child.rpc.cli.returncode == -signal.SIGKILL


async def test_a_child_that_is_gone_already_is_closed_at_once(world: World, framing: str) -> None:
    async with running(world, framing, "sys.exit(3)") as child:
        await soon(child.is_gone.wait())
        await soon(child.rpc.close())
        assert child.rpc.cli.returncode == 3


async def test_who_hears_that_the_child_is_gone_may_close_it(world: World, framing: str) -> None:
    def gone(_: RunnerError) -> None:
        child.rpc.close()

    async with running(world, framing, "read()\nsys.exit(3)", gone=gone) as child:
        with pytest.raises(ProcessExitedError):
            await child.call()
        await soon(child.is_gone.wait())
        await soon(asyncio.shield(child.rpc.close()))
        assert child.rpc.cli.returncode == 3


async def test_a_grandchild_that_holds_the_pipes_holds_no_call(world: World, framing: str) -> None:
    program = """
import subprocess
program = "import signal; signal.pause()"
subprocess.Popen([sys.executable, "-IS", "-c", program], start_new_session=True)
send(method="started", params={})
select.select([0], [], [])
os._exit(3)
"""
    async with running(world, framing, program) as child:
        await child.hears()
        calls = [asyncio.create_task(child.peer.call("call", {"text": text})) for text in ("small", BIG)]
        try:
            done, _ = await asyncio.wait(calls, timeout=END_S / 2)
            assert [type(call.exception()) for call in done] == [ProcessExitedError] * 2
            assert child.gone[0].exit_code == 3
            await soon(asyncio.shield(child.rpc.close()))
        finally:
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
