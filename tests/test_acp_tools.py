"""`runnerd acp`: the files that an editor lends to the model, and what a model says besides its answer."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from acp import RequestError
from acp.schema import FileSystemCapabilities

from runners.testing import calling
from tests.acp_editor import FILES, Editor, editor, forget, kind, stored, within
from tests.installed import Installed
from tests.programs import KEEPS_NOTHING
from tests.subjects.claude import TRANSCRIPTS
from tests.world import Daemon, World, command, until

LOGGED_OUT = f"""
import json, sys

told = [json.loads(line) for line in open({str(TRANSCRIPTS / "2.1.329" / "auth_none.jsonl")!r}) if line.strip()]
if "--version" in sys.argv:
    sys.exit(print("2.1.329 (Claude Code)"))
if sys.argv[1:3] == ["auth", "status"]:
    print(json.dumps({{"loggedIn": False}}))
    sys.exit(1)
for line in map(json.loads, sys.stdin):
    if line["type"] == "control_request":
        success = {{"subtype": "success", "request_id": line["request_id"]}}
        print(json.dumps({{"type": "control_response", "response": success}}), flush=True)
    elif line["type"] == "user":
        print("".join(json.dumps(event) + "\\n" for event in told[2:]), end="", flush=True)
"""
"""A claude without a login, as it was recorded."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Serves a stand-in for claude that calls the tools it is told to; `out` is one that is not logged in."""
    with closing(World()) as world:
        env = dict(world.env)
        claude = Installed(world).claude(log=str(world.root / "log"))
        world.env = env
        out = world.program("claude-out", LOGGED_OUT)
        entries = {
            "claude": f"kind: claude, binary: {claude}",
            "out": f"kind: claude, binary: {out}",
            "echo": "kind: echo",
        }
        lines = [f"  {name}: {{{settings}, {KEEPS_NOTHING}}}\n" for name, settings in entries.items()]
        with world.daemon(world.config("runners:\n" + "".join(lines))) as served:
            yield served


@pytest.fixture
def world(daemon: Daemon) -> Iterator[World]:
    """The world of this file's tests, without a conversation of another test."""
    yield daemon.world
    forget(daemon)


@pytest.fixture
def log(world: World) -> Path:
    """The file that holds what the stand-in was sent."""
    path = world.root / "log"
    path.unlink(missing_ok=True)
    return path


def a(editor: Editor, name: str) -> str:
    return f"{editor.cwd}/{name}"


def statuses(editor: Editor) -> list[Any]:
    return [update.get("status") for update in editor.of("tool_call", "tool_call_update")]


async def test_a_file_is_read_by_the_editor(world: World, log: Path) -> None:
    async with editor(world, "-m", "claude", fs=FILES) as one:
        await one.new()
        one.files[a(one, "a.txt")] = "one\ntwo\nthree\n"
        text, ended = await one.ask(calling(("read_file", {"path": "a.txt", "line": 2, "limit": 1}), text="I look."))
        assert (text, ended.stop_reason) == ("I look.two\n", "end_turn")
        assert statuses(one) == ["pending", None, "in_progress", "completed"]
        begun, told, _, done = one.of("tool_call", "tool_call_update")
        assert (begun["title"], begun["kind"]) == ("read_file", "read")
        assert (told["title"], told["locations"]) == ("Read a.txt", [{"path": a(one, "a.txt"), "line": 2}])
        assert told["rawInput"] == {"path": "a.txt", "line": 2, "limit": 1}
        assert done["content"][0]["content"]["text"] == "two\n"
        assert len({update["toolCallId"] for update in one.of("tool_call", "tool_call_update")}) == 1
        assert one.asked == []
        assert ended.usage.total_tokens > 0


async def test_a_write_shows_its_diff_and_is_done_once_it_is_allowed(world: World, log: Path) -> None:
    async with editor(world, "-m", "claude", fs=FILES) as one:
        await one.new()
        one.files[a(one, "a.txt")] = "old"
        await one.ask(calling(("write_file", {"path": a(one, "a.txt"), "content": "new"})))
        assert one.files[a(one, "a.txt")] == "new"
        diff = [{"type": "diff", "path": a(one, "a.txt"), "oldText": "old", "newText": "new"}]
        assert [asked["content"] for asked in one.asked] == [diff]
        assert (one.asked[0]["kind"], one.asked[0]["title"]) == ("edit", f"Write {a(one, 'a.txt')}")
        assert one.of("tool_call_update")[-1]["content"] == diff
        assert statuses(one)[-1] == "completed"
        await one.ask(calling(("write_file", {"path": "b.txt", "content": "b"})))
        assert (len(one.asked), one.files[a(one, "b.txt")]) == (2, "b")
        assert "oldText" not in one.asked[1]["content"][0]


@pytest.mark.parametrize("answer", ["no", None])
async def test_a_write_that_is_not_allowed_is_not_done_and_the_model_is_told(
    world: World, log: Path, answer: str | None
) -> None:
    async with editor(world, "-m", "claude", fs=FILES) as one:
        await one.new()
        one.answer = answer
        text, _ = await one.ask(calling(("write_file", {"path": "a.txt", "content": "new"})))
        assert (text, one.files) == ("The user did not allow this.", {})
        assert statuses(one)[-1] == "failed"


async def test_what_is_always_allowed_is_not_asked_again_in_that_session(world: World, log: Path) -> None:
    async with editor(world, "-m", "claude", fs=FILES) as one:
        await one.new()
        one.answer = "always"
        twice = [("write_file", {"path": name, "content": name}) for name in ("a", "b")]
        await one.ask(calling(*twice))
        assert (len(one.asked), len(one.files)) == (1, 2)
        await one.ask(calling(("write_file", {"path": "../c", "content": "c"})))
        assert len(one.asked) == 2  # outside the project is another matter
        await one.new()
        await one.ask(calling(twice[0]))
        assert len(one.asked) == 3


async def test_a_read_outside_the_project_takes_leave(world: World, log: Path) -> None:
    async with editor(world, "-m", "claude", fs=FILES) as one:
        await one.new()
        one.files["/etc/secret"] = "secret"
        one.answer = "no"
        text, _ = await one.ask(calling(("read_file", {"path": "/etc/secret"})))
        assert text == "The user did not allow this."
        assert one.asked[0]["title"] == f"Read /etc/secret (outside {one.cwd})"
        one.answer = "once"
        assert (await one.ask(calling(("read_file", {"path": "../../etc/../../../../etc/secret"}))))[0] == "secret"


async def test_what_a_model_calls_wrongly_is_an_error_that_it_is_told(world: World, log: Path) -> None:
    async with editor(world, "-m", "claude", fs=FILES) as one:
        await one.new()
        for call, why in (
            (("read_file", {"path": "none.txt"}), "Resource not found"),
            (("read_file", {}), "path"),
            (("read_file", '{"path": '), "Expecting value"),
            (("write_file", {"path": 5, "content": "x"}), "path"),
        ):
            text, ended = await one.ask(calling(call))
            assert why in text
            assert ended.stop_reason == "end_turn"
            assert statuses(one)[-1] == "failed"


@pytest.mark.parametrize(
    ("fs", "offered"),
    [
        (FILES, ["read_file", "write_file"]),
        (FileSystemCapabilities(read_text_file=True), ["read_file"]),
        (FileSystemCapabilities(write_text_file=True), ["write_file"]),
        (None, []),
    ],
)
async def test_only_what_the_editor_can_is_offered(
    world: World, log: Path, fs: FileSystemCapabilities | None, offered: list[str]
) -> None:
    async with editor(world, "-m", "claude", fs=fs) as one:
        await one.new()
        await one.ask("hello")
        answers = [json.loads(line) for line in log.read_text().splitlines()]
    told = [line["response"]["response"]["mcp_response"] for line in answers if line["type"] == "control_response"]
    listed = [tool["name"] for message in told for tool in message.get("result", {}).get("tools", [])]
    assert listed == offered


async def test_a_runner_without_tools_is_offered_none(world: World, log: Path) -> None:
    async with editor(world, "-m", "echo", fs=FILES) as one:
        await one.new()
        assert (await one.ask("hello"))[0] == "hello"
        assert one.of("agent_thought_chunk") == []


async def test_a_warning_is_shown_beside_the_answer_and_is_no_part_of_it(world: World, log: Path) -> None:
    async with editor(world, "-m", "echo") as one:
        await one.new()
        await within(one.agent.set_config_option(config_id="thought_level", session_id=one.session, value="high"))
        text, _ = await one.ask("hello")
        (thought,) = one.of("agent_thought_chunk")
        assert "reasoning_effort" in thought["_meta"]["runnerd"]["warning"]
        assert text == "hello"
        assert stored(world)[0][2] == {"role": "assistant", "content": "hello", "reasoning": "", "tool_calls": []}


async def test_calls_are_replayed_and_go_on_in_another_process(world: World, log: Path) -> None:
    async with editor(world, "-m", "claude", fs=FILES) as one:
        await one.new()
        one.files[a(one, "a.txt")] = "the text"
        await one.ask(calling(("read_file", {"path": "a.txt"}), ("read_file", {"path": "b.txt"})))
    async with editor(world, fs=FILES) as two:
        await within(two.agent.load_session(cwd=two.cwd, session_id=one.session, mcp_servers=[]))
        assert [kind(update) for update in two.updates] == [
            "user_message_chunk",
            "tool_call",
            "tool_call",
            "agent_message_chunk",
        ]
        first, second = two.of("tool_call")
        assert (first["status"], first["title"], first["kind"]) == ("completed", "Read a.txt", "read")
        assert first["content"][0]["content"]["text"] == "the text"
        assert second["status"] == "failed"
        assert [first["toolCallId"], second["toolCallId"]] == [update["toolCallId"] for update in one.of("tool_call")]
        two.session = one.session
        assert (await two.ask("and now?"))[0] == "and now?"


async def test_a_cancel_while_leave_is_asked_for_leaves_every_call_with_a_result(world: World, log: Path) -> None:
    async with editor(world, "-m", "claude", fs=FILES) as one:
        await one.new()
        one.answer = "never"
        calls = [("write_file", {"path": "a", "content": "a"}), ("read_file", {"path": "a"})]
        turn = asyncio.create_task(one.ask(calling(*calls)))
        await within(one.is_asked.wait())
        await one.agent.cancel(session_id=one.session)
        assert (await turn)[1].stop_reason == "cancelled"
        results = [line for line in stored(world)[0] if line.get("role") == "tool"]
        assert [(line["is_error"], "cancelled" in line["content"]) for line in results] == [(True, True)] * 2
        assert (await one.ask("go on"))[0] == "go on"
        assert one.files == {}


async def test_a_runner_that_is_not_logged_in_asks_for_a_login(world: World, log: Path) -> None:
    async with editor(world, "-m", "out") as one:
        await one.new()
        with pytest.raises(RequestError, match="claude auth login") as told:
            await one.ask("hello")
        assert told.value.code == -32000
        assert (await within(one.agent.list_sessions())).sessions == []


async def test_a_cancel_ends_the_cli_s_process(world: World, log: Path) -> None:
    async def no_cli_is_left() -> bool:
        return not any("claude" in " ".join(command(process)[:2]) for process in world.processes())

    async with editor(world, "-m", "claude") as one:
        await one.new()
        turn = asyncio.create_task(one.ask("wait [hold]"))
        await one.seen("wait")
        await one.agent.cancel(session_id=one.session)
        assert (await turn)[1].stop_reason == "cancelled"
        assert await until(no_cli_is_left)


async def test_thoughts_are_told_apart_from_the_answer_and_replayed() -> None:
    with closing(World()) as world:
        env = dict(world.env)
        ollama = Installed(world).ollama()
        world.env = env
        config = world.config(f"runners: {{ollama: {{kind: ollama, binary: {ollama}, model: 'qwen3:8b', warm: 0}}}}\n")
        with world.daemon(config):
            async with editor(world) as one:
                made = await one.new()
                assert made.config_options[0].options[0].name == "Default (ollama)"
                await within(
                    one.agent.set_config_option(config_id="thought_level", session_id=one.session, value="high")
                )
                await one.ask("hello")
                thought = "".join(update["content"]["text"] for update in one.of("agent_thought_chunk"))
                assert thought
                (used,) = one.of("usage_update")
                assert (used["size"], used["used"] > 0) == (40960, True)
                await within(one.agent.load_session(cwd=one.cwd, session_id=one.session, mcp_servers=[]))
                assert one.of("agent_thought_chunk")[-1]["content"]["text"] == thought
