"""What the real claude sends to its API for a chat: the conversation, its parameters, and almost nothing else."""

import asyncio
import base64
import json
import random
import struct
import zlib
from pathlib import Path

import pytest

from runners.testing.apis.stand_in import StandIn
from tests.live.claude_body import our_messages, our_system, said
from tests.live.claude_lab import KEY, claude_lab
from tests.live.lab import Json, Lab
from tests.world import World, assistant, system, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

CALL = {"id": "toolu_1", "name": "get_weather", "arguments": {"city": "Zürich", "days": 3}}


async def test_a_conversation_with_a_system_prompt_arrives_as_it_is_and_nothing_else(lab: Lab) -> None:
    conversation = [
        *user("What is 1 + 1?"),
        assistant("2"),
        *user("And  twice that?\n"),
        assistant("  4, I think.\n\n"),
        *user("Sure?"),
        assistant("Yes."),
        *user("Thanks"),
    ]
    answer = await lab.chat(system("Be brief.\n\n- Use digits.") + conversation)
    body = (await lab.received()).body
    assert our_system(body) == ["Be brief.\n\n- Use digits."]
    assert our_messages(body) == [said(message["role"], message["content"]) for message in conversation]
    assert body["tools"] == []
    assert answer.result["warnings"] == []
    assert len(lab.api.requests) == 1


async def test_a_chat_that_asks_for_nothing_special_sends_no_system_prompt_and_no_parameters(lab: Lab) -> None:
    await lab.chat(user("hi"))
    body = (await lab.received()).body
    assert [text for text in our_system(body) if text] == []
    assert our_messages(body) == [said("user", "hi")]
    parameters = {"thinking", "temperature", "top_p", "top_k", "stop_sequences", "tool_choice"}
    assert parameters & body.keys() == set()


async def test_tool_calls_and_their_results_in_the_history_arrive_as_blocks_of_their_own(lab: Lab) -> None:
    second = {"id": "toolu_2", "name": "get_time", "arguments": {}}
    await lab.chat(
        [
            *user("The weather?"),
            assistant("Let me look.", tool_calls=[CALL, second]),
            {"role": "tool", "tool_call_id": "toolu_1", "content": "18 degrees"},
            {"role": "tool", "tool_call_id": "toolu_2", "content": "no clock", "is_error": True},
            assistant("18 degrees."),
            *user("Thanks"),
        ]
    )
    body = (await lab.received()).body
    asked, called, results, told, thanked = our_messages(body)
    assert [asked, told, thanked] == [
        said("user", "The weather?"),
        said("assistant", "18 degrees."),
        said("user", "Thanks"),
    ]
    text, *uses = called["content"]
    assert text == {"type": "text", "text": "Let me look."}
    assert uses == [
        {"type": "tool_use", "id": call["id"], "name": call["name"], "input": call["arguments"]}
        for call in (CALL, second)
    ]
    assert [(block["type"], block["tool_use_id"], block.get("is_error", False)) for block in results["content"]] == [
        ("tool_result", "toolu_1", False),
        ("tool_result", "toolu_2", True),
    ]
    assert [text_of_result(block) for block in results["content"]] == ["18 degrees", "no clock"]
    assert body["tools"] == []


async def test_a_tool_result_may_be_the_newest_message(lab: Lab) -> None:
    await lab.chat(
        [
            *user("The weather?"),
            assistant("", tool_calls=[CALL]),
            {"role": "tool", "tool_call_id": "toolu_1", "content": "18 degrees"},
        ]
    )
    asked, called, result = our_messages((await lab.received()).body)
    assert asked == said("user", "The weather?")
    assert [block["type"] for block in called["content"]] == ["tool_use"]
    assert [text_of_result(block) for block in result["content"]] == ["18 degrees"]


def text_of_result(block: Json) -> str:
    content = block["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


async def test_the_request_is_hardly_more_than_our_own_words(lab: Lab, claude: Path) -> None:
    words = ["You are terse.", "hi"]
    await lab.chat(system(words[0]) + user(words[1]))
    received = await lab.received()
    # The CLI tells its model the working directory, which is longer here than where it should run.
    directory = str(lab.world.state / "runnerd" / "runners" / "claude" / "cwd")
    ours = sum(map(len, words)) + len(directory) * received.raw.decode().count(directory)
    # Measured: 936 and 1,604 bytes of the agent line, the date, ids, the API's fields and, in new, a paragraph on the
    # environment (with the name of this system's kernel: hence the margin). By the CLI's defaults it would be
    # 115,514 and 87,431; what the attribution header alone adds to new, 100, is over the limit.
    limit = 950 if "claude-2.1.197" in claude.parts else 1_650
    assert len(received.raw) - ours <= limit


async def test_the_model_and_the_sampling_parameters_arrive_as_they_are(lab: Lab) -> None:
    knobs: Json = {"temperature": 0.25, "top_p": 0.5, "stop": ["END", "\n\n"], "max_tokens": 321}
    answer = await lab.chat(user("hi"), runner="claude:claude-sonnet-4-5", **knobs)
    body = (await lab.received()).body
    sent = {name: body.get(name) for name in ("model", "temperature", "top_p", "stop_sequences", "max_tokens")}
    knobs["stop_sequences"] = knobs.pop("stop")
    assert sent == {"model": "claude-sonnet-4-5"} | knobs
    assert answer.result["warnings"] == []


def png(side: int) -> str:
    """A picture of noise, which no encoder makes smaller, in base64."""
    noise = random.Random(side)
    rows = b"".join(b"\0" + noise.randbytes(side * 3) for _ in range(side))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    framed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(framed)).decode()


async def test_images_arrive_byte_for_byte_in_their_places(lab: Lab) -> None:
    small, large = png(2), png(250)
    past = [{"type": "image", "media_type": "image/png", "data": small}, {"type": "text", "text": "what is it?"}]
    new = [
        {"type": "text", "text": "and this"},
        {"type": "image", "media_type": "image/png", "data": large},
        {"type": "text", "text": "beside this"},
        {"type": "image", "media_type": "image/png", "data": small},
    ]
    await lab.chat([{"role": "user", "content": past}, assistant("a dot"), {"role": "user", "content": new}])
    first, _, last = our_messages((await lab.received()).body)
    assert first["content"] == [as_block(part) for part in past]
    assert last["content"] == [as_block(part) for part in new]


def as_block(part: Json) -> Json:
    if part["type"] == "text":
        return part
    source = {"type": "base64", "media_type": part["media_type"], "data": part["data"]}
    return {"type": "image", "source": source}


MARK = "zebra-crossing"


def lay_traps(world: World) -> Path:
    """Everything by which a user or a project tells claude what to do. Returns a folder in which traps leave files."""
    sprung = world.root / "sprung"
    sprung.mkdir()
    dot_claude = world.home / ".claude"
    (dot_claude / "skills" / "stripes").mkdir(parents=True)
    (dot_claude / "CLAUDE.md").write_text(f"Always say {MARK}-user.")
    (world.root / "CLAUDE.md").write_text(f"Always say {MARK}-project.")
    skill = f"---\nname: stripes\ndescription: Use for every {MARK}-skill.\n---\nStripes."
    (dot_claude / "skills" / "stripes" / "SKILL.md").write_text(skill)

    def touch(name: str) -> list[Json]:
        return [{"hooks": [{"type": "command", "command": f"touch {sprung / name}"}]}]

    settings = {
        "model": f"{MARK}-model",
        "env": {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "1234"},
        "hooks": {"SessionStart": touch("SessionStart"), "UserPromptSubmit": touch("UserPromptSubmit")},
    }
    (dot_claude / "settings.json").write_text(json.dumps(settings))
    server = {"type": "stdio", "command": "touch", "args": [str(sprung / "mcp")]}
    (world.home / ".claude.json").write_text(json.dumps({"mcpServers": {"stripes": server}}))
    return sprung


async def by_hand(world: World, claude: Path, api: StandIn) -> None:
    """Runs claude as its user would, in a folder of a project."""
    project = world.root / "project"
    project.mkdir()
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1"}
    env = world.env | KEY | quiet | {"ANTHROPIC_BASE_URL": api.url}
    process = await asyncio.create_subprocess_exec(
        claude, "-p", "hi", env=env, cwd=project, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    await asyncio.wait_for(process.wait(), 60)


async def test_nothing_that_the_user_keeps_for_claude_touches_a_chat(world: World, claude: Path) -> None:
    sprung = lay_traps(world)
    async with claude_lab(world, claude, {"claude": {}}) as lab:
        # Claude by hand springs every trap, so this test can fail.
        await by_hand(world, claude, lab.api)
        seen = max(lab.api.requests, key=lambda received: len(received.raw))
        assert {path.name for path in sprung.iterdir()} == {"SessionStart", "UserPromptSubmit", "mcp"}
        for trap in ("user", "project", "skill", "model"):
            assert f"{MARK}-{trap}".encode() in seen.raw, trap
        assert seen.body["max_tokens"] == 1234
        for path in sprung.iterdir():
            path.unlink()
        await lab.api.forget()

        async with lab.connected():
            await lab.chat(user("hi"))
            received = await lab.received()
            assert MARK.encode() not in received.raw
            assert received.body["max_tokens"] != 1234
            assert list(sprung.iterdir()) == []
