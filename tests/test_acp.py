"""`runnerd acp`, driven by the client of the official package: sessions, turns, models, errors, ends."""

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import acp
import pytest
from acp import RequestError

from tests.acp_editor import editor, forget, kind, stored, within
from tests.programs import KEEPS_NOTHING
from tests.world import Daemon, World, command, until

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def served(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon of this file's tests, without a conversation of another test."""
    yield daemon
    forget(daemon)


async def test_two_turns_are_one_conversation_and_stream(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        await one.new()
        text, ended = await one.ask("one two three")
        assert (text, ended.stop_reason) == ("one two three", "end_turn")
        assert [update["content"]["text"] for update in one.of("agent_message_chunk")] == ["one ", "two ", "three"]
        await one.choose("echo:request")
        text, _ = await one.ask("four")
        told = [(message["role"], message["content"][0]["text"]) for message in json.loads(text)["messages"]]
        assert told == [("user", "one two three"), ("assistant", "one two three"), ("user", "four")]


async def test_it_says_what_it_can(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        told = (await within(one.agent.initialize(protocol_version=99))).model_dump(exclude_none=True)
    able = told["agent_capabilities"]
    assert (told["protocol_version"], told["agent_info"]["name"], able["load_session"]) == (1, "runnerd", True)
    assert able["prompt_capabilities"] == {"image": True, "audio": False, "embedded_context": True}
    assert able["session_capabilities"] == {"list": {}}


async def test_usage_is_told(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        await one.new()
        _, ended = await one.ask("some words")
        usage = ended.usage
    assert usage.input_tokens > 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


async def test_models_of_all_runners_are_offered_in_both_forms(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        seen: list[dict[str, Any]] = []
        one.agent._conn.add_observer(lambda event: seen.append(event.message))
        made = await one.new()
        option = next(option for option in made.config_options if option.category == "model")
        offered = [value.value for value in option.options]
        assert (option.id, option.current_value, offered[0]) == ("model", "echo", "default")
        assert {"echo", "echo:echo", "echo:request", "held:echo"} <= set(offered)
        models = next(message["result"]["models"] for message in seen if "models" in message.get("result", {}))
        assert models["currentModelId"] == "echo"
        assert [model["modelId"] for model in models["availableModels"]] == offered


async def test_an_editor_of_before_sets_its_model_as_it_did(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        await one.new()
        params = {"sessionId": one.session, "modelId": "echo:request"}
        assert await within(one.agent._conn.send_request("session/set_model", params)) == {}
        text, _ = await one.ask("hi")
        assert json.loads(text)["messages"][0]["role"] == "user"


async def test_m_is_the_model_of_new_sessions(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo:request") as one:
        made = await one.new()
        assert made.config_options[0].current_value == "echo:request"
        text, _ = await one.ask("hi")
        assert "messages" in json.loads(text)


NEAR = r"nobody serves the model 'ecko:request' \(did you mean echo:request"


async def test_a_session_with_a_model_that_does_not_exist_is_an_error_with_near_ones(served: Daemon) -> None:
    async with editor(served.world, "-m", "ecko:request") as one:
        with pytest.raises(RequestError, match=NEAR) as told:
            await one.new()
        assert told.value.code == -32602


async def test_a_model_that_does_not_exist_cannot_be_chosen_and_changes_nothing(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        await one.new()
        with pytest.raises(RequestError, match=NEAR):
            await one.choose("ecko:request")
        params = {"sessionId": one.session, "modelId": "ecko:request"}
        with pytest.raises(RequestError, match=NEAR):
            await within(one.agent._conn.send_request("session/set_model", params))
        assert (await one.ask("hi"))[0] == "hi"


async def test_what_is_no_option_is_an_error(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        await one.new()
        for option, value in (("colour", "red"), ("thought_level", "boundless"), ("model", True)):
            with pytest.raises(RequestError, match="cannot be"):
                await within(one.agent.set_config_option(config_id=option, session_id=one.session, value=value))


async def test_a_cancelled_prompt_ends_at_once_and_its_text_is_kept(served: Daemon) -> None:
    world = served.world

    async def no_cli_is_left() -> bool:
        return not [one for one in world.processes() if "held" in " ".join(command(one))]

    async with editor(world, "-m", "echo") as one:
        await one.new()
        await one.choose("held")
        turn = asyncio.create_task(one.ask("hello"))
        await one.seen("so far")
        with pytest.raises(RequestError, match="a prompt runs in this session"):
            await one.ask("and me?")
        await one.agent.cancel(session_id=one.session)
        text, ended = await turn
        assert (text, ended.stop_reason) == ("so far", "cancelled")
        assert await until(no_cli_is_left)
        await one.choose("echo:request")
        text, ended = await one.ask("go on")
        told = [message["content"][0]["text"] for message in json.loads(text)["messages"]]
        assert told == ["hello", "so far", "go on"]
        await one.agent.cancel(session_id=one.session)  # nothing runs: nothing happens
        assert (await one.ask("again"))[1].stop_reason == "end_turn"


async def test_stdin_s_end_ends_all_at_once(served: Daemon) -> None:
    world = served.world
    async with editor(world, "-m", "echo") as one:
        await one.new()
        await one.choose("held")
        turn = asyncio.create_task(one.ask("hello"))
        await one.seen("so far")
        assert await one.end() == 0
        assert one.said == b""
        with pytest.raises(ConnectionError):
            await turn

    async def nothing_runs() -> bool:
        return {process.pid for process in world.processes()} == {served.process.pid}

    assert await until(nothing_runs)
    assert [line.get("content") for line in stored(world)[0]][1:] == [None, "so far"]


async def test_prompts_of_two_sessions_run_side_by_side(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        await one.new()
        await one.choose("held")
        first = one.session
        turn = asyncio.create_task(within(one.agent.prompt(session_id=first, prompt=[acp.text_block("hold")])))
        await one.seen("so far")
        await one.new()
        assert (await one.ask("quick"))[0] == "quick"
        await one.agent.cancel(session_id=first)
        assert (await turn).stop_reason == "cancelled"


async def test_a_session_is_loaded_by_another_process_and_goes_on(served: Daemon) -> None:
    world = served.world
    async with editor(world, "-m", "echo") as one:
        await one.new()
        await one.choose("echo:request")
        first, _ = await one.ask("Hello there\nand more", acp.resource_link_block("a.py", "file:///a.py"))
        named = one.of("session_info_update")
        assert [update["title"] for update in named] == ["Hello there"]
    async with editor(world) as two:
        loaded = await within(two.agent.load_session(cwd=two.cwd, session_id=one.session, mcp_servers=[]))
        assert (loaded.config_options or [])[0].current_value == "echo:request"
        shown = [(kind(update), update["content"].get("text")) for update in two.updates]
        assert shown == [
            ("user_message_chunk", "Hello there\nand more"),
            ("user_message_chunk", None),
            ("agent_message_chunk", first),
        ]
        assert two.updates[1]["content"]["uri"] == "file:///a.py"
        two.session = one.session
        text, _ = await two.ask("more")
        assert [m["role"] for m in json.loads(text)["messages"]] == ["user", "assistant", "user"]


async def test_sessions_are_listed_newest_first_with_their_titles(served: Daemon) -> None:
    world = served.world
    async with editor(world, "-m", "echo") as one:
        for name in ("first", "second"):
            await one.new()
            await one.ask(name)
        await one.new()  # has not begun
        elsewhere = await within(one.agent.new_session(cwd="/elsewhere/", mcp_servers=[]))
        one.session = elsewhere.session_id
        await one.ask("third")
        every = (await within(one.agent.list_sessions())).sessions
        assert [(row.title, row.cwd) for row in every] == [
            ("third", "/elsewhere"),
            ("second", one.cwd),
            ("first", one.cwd),
        ]
        assert [row.updated_at for row in every] == sorted((row.updated_at or "" for row in every), reverse=True)
        here = (await within(one.agent.list_sessions(cwd=one.cwd))).sessions
        assert [row.title for row in here] == ["second", "first"]
        with pytest.raises(RequestError, match="there is no page"):
            await within(one.agent.list_sessions(cursor="2"))


async def test_conversations_are_private_and_damage_is_told(served: Daemon) -> None:
    world = served.world
    async with editor(world, "-m", "echo") as one:
        await one.new()
        await one.ask("hello")
        directory = world.state / "runnerd" / "acp"
        (file,) = directory.iterdir()
        assert (stat.S_IMODE(directory.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)
        head, *entries = file.read_text().splitlines()
        wrong = ['{"role": "user"}', "not json", '{"role": "assistant", "content": 1}', "[]"]
        for damaged in wrong:
            file.write_text("\n".join([head, damaged]))
            with pytest.raises(RequestError, match="damaged"):
                await within(one.agent.load_session(cwd=one.cwd, session_id=one.session, mcp_servers=[]))
        assert len((await within(one.agent.list_sessions())).sessions) == 1
        file.write_text("{")
        assert (await within(one.agent.list_sessions())).sessions == []
        await one.end()
        assert b"is damaged" in one.said
        assert entries


@pytest.mark.parametrize("session_id", ["0" * 32, "../../secret", "", "x"])
async def test_a_session_that_is_not_kept_cannot_be_loaded(served: Daemon, session_id: str) -> None:
    async with editor(served.world, "-m", "echo") as one:
        with pytest.raises(RequestError, match="there is no session"):
            await within(one.agent.load_session(cwd=one.cwd, session_id=session_id, mcp_servers=[]))
        with pytest.raises(RequestError, match="there is no open session"):
            await within(one.agent.prompt(session_id=session_id, prompt=[acp.text_block("hi")]))


async def test_images_and_resources_reach_the_model(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo:request") as one:
        await one.new()
        text = acp.resource_block(acp.embedded_text_resource("file:///a.py", "x = 1\n"))
        image = acp.resource_block(acp.embedded_blob_resource("file:///b.png", PNG, mime_type="image/png"))
        link = acp.resource_link_block("c", 'file:///c "d".txt')
        answer, _ = await one.ask("look:", acp.image_block(PNG, "image/png"), text, image, link)
        parts = json.loads(answer)["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image", "text", "image", "text"]
    assert parts[2]["text"] == '<resource uri="file:///a.py">\nx = 1\n\n</resource>'
    assert parts[3] == {"type": "image", "media_type": "image/png", "data": PNG}
    assert parts[4]["text"] == """<resource_link uri='file:///c "d".txt' name="c"/>"""


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (acp.audio_block("AAAA", "audio/wav"), "content of the type 'audio'"),
        (acp.resource_block(acp.embedded_blob_resource("file:///z.zip", "AAAA")), "file:///z.zip is neither text nor"),
        (acp.image_block("AAAA", "image/png"), "no image/png"),
        (acp.image_block(PNG, "image/tiff"), "media_type"),
    ],
    ids=["audio", "zip", "no image", "tiff"],
)
async def test_what_no_model_takes_is_an_error_and_no_part_of_the_conversation(
    served: Daemon, block: Any, why: str
) -> None:
    async with editor(served.world, "-m", "echo:request") as one:
        await one.new()
        with pytest.raises(RequestError, match=why) as told:
            await one.ask("listen", block)
        assert told.value.code == -32602
        answer, _ = await one.ask("hi")
        assert len(json.loads(answer)["messages"]) == 1


async def test_lines_that_make_no_sense_are_answered_and_do_no_harm(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        stdin = one.process.stdin
        assert stdin is not None
        stdin.write(b'\nnot json\n[1]\n"x"\n{"id": [1], "result": {}}\n{"jsonrpc":"2.0","method":"$/novelty"}\n')
        stdin.write(b'{"jsonrpc":"2.0","id":"x","method":"session/new","params":{"cwd":5}}\n' + b"[" * 100_000 + b"\n")
        await one.new()
        assert (await one.ask("hi"))[0] == "hi"
        for method, code in (("session/novelty", -32601), ("_novelty", -32601), ("session/prompt", -32602)):
            with pytest.raises(RequestError) as told:
                await within(one.agent._conn.send_request(method, {}))
            assert told.value.code == code
        with pytest.raises(RequestError, match="is absolute"):
            await within(one.agent.new_session(cwd="here", mcp_servers=[]))


async def test_mcp_servers_are_not_connected_to_and_stderr_says_so(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        server = acp.schema.McpServerStdio(name="files", command="/bin/false", args=[], env=[])
        await within(one.agent.new_session(cwd=one.cwd, mcp_servers=[server]))
        await one.end()
        assert one.said.decode().strip().endswith("the editor's MCP servers are not connected to: files")


async def test_an_editor_whose_stdout_has_gone_ends_it(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        await one.new()
        assert one.process.stdout is not None
        one.process.stdout._transport.close()  # type: ignore[attr-defined]
        assert one.process.stdin is not None
        one.process.stdin.write(b'{"jsonrpc":"2.0","id":7,"method":"session/list","params":{}}\n')
        assert await within(one.process.wait()) == 0


async def test_without_a_daemon_one_is_started(world: World) -> None:
    world.env["RUNNERD_CONFIG"] = str(world.config(f"runners: {{echo: {{kind: echo, {KEEPS_NOTHING}}}}}\n"))
    async with editor(world, "-m", "echo") as one:
        await one.new()
        assert (await one.ask("hi"))[0] == "hi"
    done = await asyncio.to_thread(world.runnerd, "stop")
    assert done.returncode == 0


async def test_a_daemon_that_has_ended_meanwhile_is_started_again(world: World) -> None:
    world.env["RUNNERD_CONFIG"] = str(world.config(f"runners: {{echo: {{kind: echo, {KEEPS_NOTHING}}}}}\n"))
    async with editor(world, "-m", "echo") as one:
        await one.new()
        for text in ("one", "two"):
            assert (await one.ask(text))[0] == text
            assert (await asyncio.to_thread(world.runnerd, "stop")).returncode == 0


async def test_no_start_says_what_to_do(world: World) -> None:
    async with editor(world, "--no-start") as one:
        with pytest.raises(RequestError, match="runnerd serve"):
            await one.new()


async def test_without_a_model_or_a_default_a_prompt_says_so(served: Daemon) -> None:
    async with editor(served.world) as one:
        made = await one.new()
        assert made.config_options[0].options[0].name == "Default (nobody)"
        with pytest.raises(RequestError, match="no runner may be a default"):
            await one.ask("hi")


def test_a_file_as_stdin_is_told_what_is_expected(world: World) -> None:
    command = [sys.executable, "-m", "runnerd", "acp"]
    with Path(__file__).open("rb") as file:
        done = subprocess.run(command, env=world.env, stdin=file, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"runnerd: an editor starts `runnerd acp`, with pipes as its stdin and stdout\n"


async def test_only_the_newest_hundred_are_kept(served: Daemon) -> None:
    async with editor(served.world, "-m", "echo") as one:
        made: list[str] = []
        for _ in range(3):
            await one.new()
            await one.ask("hello")
            made.append(one.session)
        directory = served.world.state / "runnerd" / "acp"
        head, *entries = (directory / f"{made[0]}.jsonl").read_text().splitlines()
        for number in range(110):
            older = json.loads(head) | {"id": f"{number:032x}", "updated_at": f"2000-01-01T00:00:00.{number:06d}"}
            (directory / f"{number:032x}.jsonl").write_text("\n".join([json.dumps(older), *entries]) + "\n")
        await one.new()
        listed = [row.session_id for row in (await within(one.agent.list_sessions())).sessions]
        assert (len(listed), listed[:3]) == (100, made[::-1])
        assert listed[-1] == f"{13:032x}"
