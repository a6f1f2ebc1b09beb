"""What only the real opencode can show: its user's files stay out, its commands too, and it tries nothing again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import pytest_asyncio

from runners.errors import NotAuthenticatedError, RunnerError
from runners.messages import ChatRequest, ChatResponse
from runners.provider import Sampling, SessionOptions
from runners.providers.acp.session import AcpSession
from runners.providers.opencode.provider import TESTED_VERSIONS, OpencodeProvider
from runners.providers.opencode.settings import OpencodeSettings
from runners.stream import Text
from runners.testing.apis.completions_api import AnyReply, CompletionsApi, Error, error, text
from runners.testing.apis.stand_in import Json
from tests.conftest import real_cli
from tests.readme import entry
from tests.subjects.acp import held
from tests.subjects.copilot import received_by_api
from tests.subjects.opencode import RealOpencode
from tests.world import END_S, World, assistant, system, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Scene:
    world: World
    api: CompletionsApi
    subject: RealOpencode

    @property
    def provider(self) -> OpencodeProvider:
        return self.subject.made

    async def chat(self, messages: list[Json], **fields: Any) -> ChatResponse:
        """The answer, which is the last text unless the API has been told another."""
        return await self.provider.complete(ChatRequest.model_validate({"messages": messages, **fields}))

    def processes(self) -> set[int]:
        return {process.pid for process in self.world.processes()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(module_world: World) -> AsyncIterator[Scene]:
    plant(module_world)
    binary = real_cli("opencode", TESTED_VERSIONS[-1])
    async with CompletionsApi() as api:
        subject = RealOpencode(module_world, binary, api)
        async with held(subject.made):
            yield Scene(module_world, api, subject)
        await subject.made.aclose()


@pytest.fixture
def scene(shared: Scene) -> Scene:
    shared.api.requests.clear()
    return shared


def plant(world: World) -> None:
    """What a user may have: in their configuration, their home, and above the working directory."""
    acted = str(world.root / "ACTED")
    config = {
        "instructions": [str(world.home / "AGENTS.md")],
        "agent": {"chat": {"prompt": "PLANTED", "tools": {"*": True}}},
        "mcp": {"planted": {"type": "local", "command": ["touch", acted], "enabled": True}},
        "command": {"help": {"template": "PLANTED"}},
    }
    plugin = f"export const P = async () => {{ require('fs').writeFileSync({json.dumps(acted)}, ''); return {{}} }}"
    for place in (world.home / ".config" / "opencode", world.home / ".opencode", world.root, world.state):
        for below in ("agent", "plugin", "command"):
            (place / below).mkdir(parents=True)
        (place / "opencode.json").write_text(json.dumps(config))
        (place / "AGENTS.md").write_text("PLANTED")
        (place / "agent" / "chat.md").write_text("---\nmode: primary\n---\nPLANTED")
        (place / "command" / "init.md").write_text("PLANTED")
        (place / "plugin" / "planted.js").write_text(plugin)
    (world.home / "AGENTS.md").write_text("PLANTED")
    (world.home / ".claude").mkdir()
    (world.home / ".claude" / "CLAUDE.md").write_text("PLANTED")


async def test_nothing_of_its_users_and_nothing_of_its_own_reaches_the_model(scene: Scene) -> None:
    assert (await scene.chat(system("Be brief.\n\n\n${x} ") + user("hi"))).content == "hi"
    (request,) = scene.api.requests
    assert request.body["messages"] == [
        {"role": "system", "content": "Be brief.\n\n\n${x} "},
        {"role": "user", "content": "hi"},
    ]
    assert request.body.keys() <= {"model", "messages", "max_tokens", "stream", "stream_options"}
    assert not (scene.world.root / "ACTED").exists()
    assert scene.api.others == []


async def test_no_file_is_read_for_a_text_that_names_one(scene: Scene) -> None:
    session = await scene.provider.open()
    try:
        secret = session.host.cwd / "secret.txt"
        secret.write_text("S3CRET")
        for said in ("@secret.txt", f"look at @{secret} please", f"@{secret}"):
            assert (await scene.chat(user(said))).content == said
            assert scene.api.requests[-1].body["messages"] == user(said)
        assert not any(b"S3CRET" in request.raw for request in scene.api.requests)
        secret.unlink()
    finally:
        await session.aclose()


async def test_commands_of_the_clis_own_reach_the_model_as_they_are_now_and_in_the_past(scene: Scene) -> None:
    commands = ["/help", " \n/init now", "\ufeff/review", "/nosuch", " "]
    for command in commands:
        assert (await scene.chat(user(command))).content == command
        assert scene.api.requests[-1].body["messages"] == user(command)
    past = [message for command in commands for message in (*user(command), assistant("ok"))]
    assert (await scene.chat([*past, *user("last")])).content == "last"
    assert scene.api.requests[-1].body["messages"] == [*past, *user("last")]


async def test_a_turn_that_was_given_up_is_no_part_of_the_conversation(scene: Scene) -> None:
    session = await scene.provider.open()
    try:
        await session.prepare(SessionOptions(system="Be brief."))
        assert await answer(session, "/one") == "/one"
        async with begun(session):
            pass
        assert await answer(session, "two") == "two"
        assert await answer(session, "three") == "three"
        told = received_by_api(scene.api.requests[-1].body)
        said = ["/one", "/one", "two", "two", "three"]
        assert told.system == "Be brief."
        assert told.messages == list(zip(["user", "assistant"] * 3, said, strict=False))
    finally:
        await session.aclose()


@asynccontextmanager
async def begun(session: AcpSession) -> AsyncIterator[None]:
    """In the middle of an answer that does not end; behind that it is given up."""
    messages = ChatRequest.model_validate({"messages": user("[hold]")}).conversation
    async with session.turn(messages, Sampling()) as turn:
        async for chunk in turn:
            if isinstance(chunk, Text):
                break
        yield


async def answer(session: AcpSession, said: str) -> str:
    messages = ChatRequest.model_validate({"messages": user(said)}).conversation
    async with session.turn(messages, Sampling()) as turn:
        return "".join([chunk.chunk async for chunk in turn if isinstance(chunk, Text)])


FAILURES: list[tuple[AnyReply, str, bool]] = [
    (error(401, "Incorrect API key provided: dummy."), "auth_expired", False),
    (error(404, "The model does not exist", code="model_not_found"), "model_not_found", False),
    (error(400, "maximum context length is 8 tokens", code="context_length_exceeded"), "context_overflow", False),
    (error(429, "slow down", headers={"retry-after": "70"}), "rate_limited", True),
    (error(429, "busy"), "rate_limited", True),
    (error(429, "You exceeded your current quota", code="insufficient_quota"), "quota_exhausted", False),
    (error(500, "oops"), "vendor_error", True),
    (error(503, "oops"), "overloaded", True),
    (text("a", "b").broken("drop"), "network", True),
    (text("a", "b").broken("error", after=1), "vendor_error", True),
    (text("a", "b").broken("cut", after=1), "vendor_error", True),
]


async def test_each_failure_is_told_at_once_and_nothing_is_asked_twice(scene: Scene) -> None:
    for number, (reply, kind, retryable) in enumerate(FAILURES, 1):
        scene.api.script(reply)
        with pytest.raises(RunnerError) as failed:
            await scene.chat(user("hi"))
        assert (failed.value.kind, failed.value.retryable) == (kind, retryable), failed.value
        if kind == "auth_expired":
            assert "standin, mend the key that the entry's `provider` names" in str(failed.value.hint)
        said = 70 if isinstance(reply, Error) and "retry-after" in reply.headers else 0
        assert said - 60 < (failed.value.retry_after_s or 0) <= said
        assert len(scene.api.requests) == number


async def test_an_answer_that_was_cut_says_so_and_what_is_used_is_told(scene: Scene) -> None:
    parts = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 3}}
    scene.api.script(text("a", reasoning="hm", finish_reason="length", usage=parts))
    answered = await scene.chat(user("hi"))
    assert (answered.content, answered.reasoning, answered.stop_reason) == ("a", "hm", "length")
    assert answered.usage is not None
    used = (answered.usage.input_tokens, answered.usage.cached_input_tokens, answered.usage.output_tokens)
    assert used == (11, 4, 7)
    assert answered.usage.reasoning_tokens == 3


def as_in_readme(scene: Scene) -> OpencodeProvider:
    """The entry that README shows, but for the address."""
    shown = json.dumps(entry("opencode")).replace("http://127.0.0.1:8000/v1", scene.api.url)
    given = scene.provider.settings
    settings = OpencodeSettings.model_validate_json(shown).model_copy(
        update={"binary": given.binary, "env": given.env | {"MY_KEY": "readme"}}
    )
    return OpencodeProvider("opencode", settings, state_dir=scene.world.state / "readme")


async def test_its_process_is_gone_once_its_last_session_is_closed_in_the_middle_of_an_answer(scene: Scene) -> None:
    others = scene.processes()
    provider = as_in_readme(scene)
    session = await provider.open()
    with pytest.raises(RunnerError) as refused:
        await provider.with_model("mine/nonesuch").open()
    assert refused.value.kind == "model_not_found"
    await session.prepare(SessionOptions())
    async with begun(session):
        asked = scene.api.requests[-1]
        assert (asked.body["model"], asked.body["max_tokens"]) == ("llama", 4096)
        assert asked.headers["authorization"] == "Bearer readme"
        (pid,) = scene.processes() - others
        async with asyncio.timeout(END_S):
            await session.aclose()
        assert not psutil.pid_exists(pid)
    assert scene.processes() == others
    await provider.aclose()


async def test_without_a_login_a_probe_says_what_mends_it(scene: Scene) -> None:
    settings = scene.provider.settings.model_copy(update={"provider": {}, "model": None})
    provider = OpencodeProvider("opencode", settings, state_dir=scene.world.state / "no-login")
    with pytest.raises(NotAuthenticatedError) as missing:
        await provider.probe()
    assert "opencode auth login" in str(missing.value.hint)
    await provider.aclose()
