"""The pure parts of the wire: framing, JSON, environment, deadlines."""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.errors import DeadlineExceededError, NotInstalledError, VendorError
from runners.messages import Usage
from runners.settings import Timeouts
from runners.stream import Text, UsageReport
from runners.tools import ToolCall
from runners.wire.deadlines import TurnDeadlines, within
from runners.wire.environment import child_environment, find_binary
from runners.wire.framing import Framer, HeaderFramer, LineFramer, dump_json, parse_json

USAGE = Usage(input_tokens=1, cost_usd=0.5)


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(1, 30)))
def test_lines_come_out_whole_however_the_bytes_were_cut(lines: list[bytes], cuts: list[int]) -> None:
    lines = [line.replace(b"\n", b"\r") for line in lines]
    data = b"".join(line + b"\n" for line in lines) + b"rest"
    framer, found = LineFramer(), []
    for size in cuts:
        found += framer.feed(data[:size])
        data = data[size:]
    found += framer.feed(data)
    assert found == lines
    assert framer.rest() == [b"rest"]


@pytest.mark.parametrize("data", [b"x" * 11 + b"\n", b"x" * 11, b"ok\n" + b"x" * 11])
def test_the_cap_holds_for_complete_and_incomplete_lines(data: bytes) -> None:
    framer = LineFramer(10)
    assert framer.feed(data) == ([b"ok"] if data.startswith(b"ok") else [])
    assert "cap of 10 bytes" in str(framer.overflow)
    assert framer.feed(b"\nmore\n") == []


def test_a_line_of_exactly_the_cap_passes() -> None:
    framer = LineFramer(10)
    assert framer.feed(b"x" * 10) == []
    assert framer.feed(b"\n" + b"y" * 10 + b"\n") == [b"x" * 10, b"y" * 10]


_SPACE = b" \t\n\r\x0b\x0c"
_STRAY_TEXT = st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"\r"))
_CUTS = st.lists(st.integers(1, 30))


def fed(framer: Framer, data: bytes, cuts: list[int]) -> list[bytes]:
    """The frames of `data`, fed in pieces of the sizes `cuts`, and what is left in one."""
    found = []
    for size in cuts:
        found += framer.feed(data[:size])
        data = data[size:]
    return found + framer.feed(data)


@given(st.lists(st.binary(max_size=40)), _CUTS)
def test_bodies_come_out_whole_however_the_bytes_were_cut(bodies: list[bytes], cuts: list[int]) -> None:
    framer = HeaderFramer()
    assert fed(framer, b"".join(map(framer.framed, bodies)) + b"Content-Len", cuts) == bodies
    assert framer.rest() == [b"Content-Len"]
    assert framer.overflow is None


@given(st.lists(st.tuples(st.lists(_STRAY_TEXT), _STRAY_TEXT, st.binary(max_size=40))), _CUTS)
def test_stray_lines_and_texts_between_bodies_come_out_beside_them(
    parts: list[tuple[list[bytes], bytes, bytes]], cuts: list[int]
) -> None:
    framer, data, expected = HeaderFramer(), b"", []
    for lines, text, body in parts:
        data += b"".join(line + b"\n" for line in lines) + text + framer.framed(body)
        strays = [line.strip(_SPACE) for line in lines] + [text.lstrip(_SPACE)]
        expected += [stray for stray in strays if stray] + [body]
    assert fed(framer, data, cuts) == expected
    assert framer.rest() == []


_TOKENS = [
    b"Content-Length: 5\r\n",
    b"content-length:11\n",
    b"\r\n",
    b"\n",
    b"12345",
    b"{}",
    b"X-Header: y\n",
    b"z" * 9,
]


@given(st.lists(st.sampled_from(_TOKENS)), _CUTS, st.sampled_from([8, 10, 20, 1000]))
def test_what_comes_out_never_depends_on_the_cuts(tokens: list[bytes], cuts: list[int], cap_bytes: int) -> None:
    for at_once, in_pieces in (
        (LineFramer(cap_bytes), LineFramer(cap_bytes)),
        (HeaderFramer(cap_bytes), HeaderFramer(cap_bytes)),
    ):
        data = b"".join(tokens)
        assert fed(in_pieces, data, cuts) == at_once.feed(data)
        assert (in_pieces.overflow is None) == (at_once.overflow is None)
        if at_once.overflow is None:
            assert in_pieces.rest() == at_once.rest()


@pytest.mark.parametrize("form", ["{}", "content-length:{}", "  CONTENT-LENGTH:    {} \t", "Content-Length: 0{}"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_header_has_many_forms(form: str, end: bytes) -> None:
    body = "é\u2028\n".encode()
    header = form.format(len(body)) if ":" in form else f"Content-Length: {len(body)}"
    assert HeaderFramer().feed(header.encode() + end + end + body) == [body]


def test_other_headers_are_no_frames_behind_the_length() -> None:
    data = b"Content-Length: 2\r\nContent-Type: application/json\r\nX-Content-Length: 99\r\n\r\n{}"
    assert HeaderFramer().feed(data) == [b"{}"]


def test_an_empty_body_is_a_frame_and_the_next_one_follows() -> None:
    framer = HeaderFramer()
    assert framer.feed(b"Content-Length: 0\r\n\r\nContent-Length: 1\r\n\r\nx") == [b"", b"x"]


def test_the_length_counts_bytes() -> None:
    body = dump_json({"text": "é\u2028😀"})
    framed = HeaderFramer().framed(body)
    assert framed == b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    assert HeaderFramer().feed(framed) == [body]


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: 31\r\n",
        b"Content-Length: 31\r\n\r\n" + b"x" * 31,
        b"Content-Length: 999999999999999999\r\n\r\n",
        b"x" * 31,
        b"x" * 31 + b"\n",
    ],
)
@pytest.mark.parametrize("before", [b"", b"Content-Length: 2\r\n\r\nok"])
def test_the_cap_holds_for_bodies_and_for_lines_where_headers_should_stand(before: bytes, data: bytes) -> None:
    framer = HeaderFramer(30)
    assert framer.feed(before + data) == ([b"ok"] if before else [])
    assert "cap of 30 bytes" in str(framer.overflow)
    assert framer.feed(b"\r\nContent-Length: 2\r\n\r\nok") == []
    assert framer.rest() == []


def test_a_body_of_exactly_the_cap_passes() -> None:
    framer = HeaderFramer(30)
    data = framer.framed(b"x" * 30)
    assert framer.feed(data[:-1]) == []
    assert framer.feed(data[-1:] + data + b"y" * 30 + b"\n") == [b"x" * 30, b"x" * 30, b"y" * 30]
    assert framer.overflow is None


def test_a_length_that_is_no_number_is_no_header() -> None:
    framer = HeaderFramer()
    strays = [b"Content-Length: -1", b"Content-Length: 1e3", b"Content-Length:", b"Content-Length: 5;"]
    assert framer.feed(b"\r\n\r\n".join([*strays, framer.framed(b"{}")])) == [*strays, b"{}"]


def test_a_lone_surrogate_is_parsed_and_written_again() -> None:
    assert parse_json(rb'{"text":"\ud83d"}') == {"text": "\ud83d"}
    assert json.loads(dump_json({"text": "\ud83d"})) == {"text": "\ud83d"}


def test_an_integer_of_any_length_stays_itself() -> None:
    assert json.loads(dump_json({"n": 2**80})) == {"n": 2**80}


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b"nonsense", b"NaN", b"[" * 100_000, "{}".encode("utf-16")])
def test_what_is_no_json_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the two parsers have messages of their own
        parse_json(line)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Text("a"), {"type": "text", "chunk": "a"}),
        (Text("\udc00"), {"type": "text", "chunk": "\udc00"}),
        (VendorError("no", hint="wait"), {"kind": "vendor_error", "message": "no", "retryable": True, "hint": "wait"}),
        (ToolCall(id="1", name="f"), ToolCall(id="1", name="f").model_dump()),
        (UsageReport(USAGE), {"type": "usage", "usage": asdict(USAGE)}),
    ],
)
def test_our_objects_have_a_json_form(value: Any, expected: Any) -> None:
    line = dump_json(value)
    assert line.endswith(b"\n")
    assert json.loads(line) == expected


def test_a_child_sees_what_is_allowed_what_is_passed_by_name_and_what_its_entry_sets() -> None:
    ours = {
        "HOME": "/h",
        "LC_ALL": "C",
        "XDG_RUNTIME_DIR": "/r",
        "https_proxy": "p",
        "ANTHROPIC_API_KEY": "secret",
        "ANTHROPIC_BASE_URL": "http://loop",
        "PASSED": "1",
        "RUNNERD_CONFIG": "x",
        "PATH": "/usr/bin:relative:.::/bin",
    }
    child = child_environment(ours, env={"HOME": "/other", "SET": "2"}, env_pass=["PASSED", "ABSENT"])
    assert child == {
        "HOME": "/other",
        "LC_ALL": "C",
        "XDG_RUNTIME_DIR": "/r",
        "https_proxy": "p",
        "PASSED": "1",
        "SET": "2",
        "PATH": "/usr/bin:/bin",
    }


def test_a_binary_is_found_on_the_childs_own_path() -> None:
    assert find_binary("sh", {"PATH": "/bin"}, hint="").endswith("/sh")
    assert find_binary(sys.executable, {"PATH": ""}, hint="") == sys.executable
    for missing in ("sh-nowhere", "/nowhere/sh", "~/nowhere"):
        with pytest.raises(NotInstalledError) as caught:
            find_binary(missing, {"PATH": "/bin"}, hint="get it")
        assert caught.value.hint == "get it"


async def test_a_wait_says_which_deadline_it_met_and_what_it_waited_for() -> None:
    with pytest.raises(DeadlineExceededError, match=r"the kettle.*spawn_s") as caught:
        await within(asyncio.Event().wait(), 0.01, deadline="spawn_s", doing="waiting for the kettle")
    assert caught.value.to_dict()["limit_s"] == 0.01
    assert caught.value.retryable


@pytest.mark.parametrize("deadline", ["first_chunk_s", "silence_s", "turn_s"])
async def test_the_nearest_deadline_of_a_turn_ends_a_wait(deadline: str) -> None:
    deadlines = TurnDeadlines(Timeouts.model_validate({deadline: 0.01}))
    with pytest.raises(DeadlineExceededError) as caught:
        await deadlines.wait(asyncio.Event().wait())
    assert caught.value.deadline == deadline


async def test_after_the_first_content_only_silence_and_the_turn_count() -> None:
    deadlines = TurnDeadlines(Timeouts(first_chunk_s=0.01, silence_s=0.05))
    deadlines.is_content_seen = True
    with pytest.raises(DeadlineExceededError) as caught:
        await deadlines.wait(asyncio.Event().wait())
    assert caught.value.deadline == "silence_s"


async def test_a_time_limit_of_what_is_waited_for_stays_its_own() -> None:
    async def own_limit() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await TurnDeadlines(Timeouts()).wait(own_limit())


async def test_a_wait_that_began_late_has_its_own_silence_and_what_is_there_is_no_silence() -> None:
    clock = asyncio.get_running_loop().time
    deadlines = TurnDeadlines(Timeouts(silence_s=0.2))
    ends = clock() + 0.5
    while clock() < ends:
        await deadlines.wait(asyncio.sleep(0))
    began = clock()
    with pytest.raises(DeadlineExceededError) as caught:
        await deadlines.wait(asyncio.Event().wait())
    assert caught.value.deadline == "silence_s"
    assert clock() - began >= 0.2


async def test_time_between_two_waits_is_no_silence_but_counts_in_the_turn() -> None:
    deadlines = TurnDeadlines(Timeouts(silence_s=0.02, turn_s=0.1))
    await deadlines.wait(asyncio.sleep(0))
    await asyncio.sleep(0.05)
    assert await deadlines.wait(asyncio.sleep(0, "there")) == "there"
    await asyncio.sleep(0.06)
    with pytest.raises(DeadlineExceededError, match="turn_s"):
        deadlines.check()


async def test_who_met_a_deadline_can_still_be_cancelled_and_a_cancel_is_no_deadline() -> None:
    deadlines = TurnDeadlines(Timeouts(silence_s=0.01))

    async def waits_twice() -> None:
        with pytest.raises(DeadlineExceededError):
            await deadlines.wait(asyncio.Event().wait())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        asyncio.get_running_loop().call_soon(task.cancel)
        await deadlines.wait(asyncio.Event().wait())

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(waits_twice())


async def test_a_cancel_at_the_moment_of_a_deadline_is_not_lost() -> None:
    deadlines = TurnDeadlines(Timeouts(silence_s=0.01))

    async def cancelled_at_its_end(task: "asyncio.Task[None]") -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def waits() -> None:
        task = asyncio.current_task()
        assert task is not None
        await deadlines.wait(cancelled_at_its_end(task))

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(waits())
