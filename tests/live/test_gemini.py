"""What only the real gemini can show: its user's files stay out, its commands too, and it ends when it is to."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from runners.errors import NotAuthenticatedError, RunnerError
from runners.messages import ChatRequest
from runners.provider import Sampling, SessionOptions
from runners.providers.acp.sent import GUARD
from runners.providers.acp.session import AcpSession
from runners.providers.gemini.dialect import KEY_HINT
from runners.providers.gemini.provider import TESTED_VERSIONS, GeminiProvider
from runners.stream import Text
from runners.testing.apis.gemini_api import AnyReply, GeminiApi, error, system_of, text, told
from runners.testing.apis.stand_in import Json
from tests.conftest import real_cli
from tests.subjects.acp import held
from tests.subjects.gemini import RealGemini, received_by_api
from tests.world import END_S, World, assistant, system, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Scene:
    world: World
    api: GeminiApi
    subject: RealGemini

    @property
    def provider(self) -> GeminiProvider:
        return self.subject.made

    async def chat(self, messages: list[Json]) -> str:
        """The answer, which is the last text unless the API has been told another."""
        return (await self.provider.complete(ChatRequest.model_validate({"messages": messages}))).content

    def processes(self) -> set[int]:
        return {process.pid for process in self.world.processes()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(module_world: World) -> AsyncIterator[Scene]:
    plant(module_world)
    binary = real_cli("gemini", TESTED_VERSIONS[-1])
    async with GeminiApi() as api:
        subject = RealGemini(module_world, binary, api)
        async with held(subject.made):
            yield Scene(module_world, api, subject)
        await subject.made.aclose()


@pytest.fixture
def scene(shared: Scene) -> Scene:
    shared.api.requests.clear()
    return shared


def plant(world: World) -> None:
    """What a user may have, and a lock that a gemini of theirs holds, or has left."""
    act = {"command": "touch", "args": [str(world.root / "ACTED")]}
    hook = [{"hooks": [{"type": "command", "command": f"touch {world.root / 'ACTED'}"}]}]
    theirs = world.home / ".gemini"
    (theirs / "projects.json.lock").mkdir(parents=True)
    extension = theirs / "extensions" / "planted"
    extension.mkdir(parents=True)
    (extension / "gemini-extension.json").write_text(
        json.dumps(
            {"name": "planted", "version": "1.0.0", "mcpServers": {"more": act}, "contextFileName": "PLANTED.md"}
        )
    )
    (extension / "PLANTED.md").write_text("PLANTED")
    settings = {
        "mcpServers": {"planted": act},
        "tools": {"core": ["run_shell_command"]},
        "hooksConfig": {"enabled": True},
        "hooks": {"SessionStart": hook, "BeforeModel": hook},
        "context": {"fileName": ["GEMINI.md", "PLANTED.md"]},
    }
    (theirs / "settings.json").write_text(json.dumps(settings))
    for above in (theirs, world.home, world.root, world.state):
        (above / "GEMINI.md").write_text("PLANTED")


def tree(place: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in place.rglob("*")}


async def test_nothing_of_its_users_reaches_the_model_and_nothing_of_theirs_is_touched(scene: Scene) -> None:
    before = tree(scene.world.home)
    assert await scene.chat(system("Be brief.") + user("hi")) == "hi"
    (request,) = scene.api.requests
    assert system_of(request.body) == "Be brief."
    assert received_by_api(request.body).tools == []
    context, said = told(request.body)
    assert context[1].startswith("<session_context>")
    assert said == ("user", "hi")
    assert b"PLANTED" not in request.raw
    assert not (scene.world.root / "ACTED").exists()
    # Its lock too is as it was: it was not waited for, for the process has a home of its own.
    assert tree(scene.world.home) == before
    assert scene.api.others == []


async def test_no_file_is_read_for_a_text_that_names_one(scene: Scene) -> None:
    session = await scene.provider.open()
    try:
        secret = session.host.cwd / "secret.txt"
        secret.write_text("S3CRET")
        for said in ("@secret.txt", f"look at @{secret} please", f"@{secret}"):
            assert await scene.chat(user(said)) == said
            assert told(scene.api.requests[-1].body)[-1] == ("user", said)
        assert not any(b"S3CRET" in request.raw for request in scene.api.requests)
    finally:
        await session.aclose()


async def test_commands_of_the_clis_own_reach_the_model_now_and_in_the_past(scene: Scene) -> None:
    commands = ["/help", " \n/memory show", "\ufeff/about", "$x", "?", " "]
    for command in commands[:4]:
        assert await scene.chat(user(command)) == command
    past = [message for command in commands for message in (*user(command), assistant("ok"))]
    assert await scene.chat([*past, *user("last")]) == "last"
    reached = [message for message in told(scene.api.requests[-1].body) if message != ("user", GUARD)]
    assert reached == [pair for command in commands for pair in (("user", command), ("assistant", "ok"))] + [
        ("user", "last")
    ]


async def test_a_turn_that_was_given_up_is_no_part_of_the_conversation(scene: Scene) -> None:
    session = await scene.provider.open()
    try:
        await session.prepare(SessionOptions())
        assert await answer(session, "one") == "one"
        async with begun(session):
            pass
        assert await answer(session, "two") == "two"
        assert told(scene.api.requests[-1].body)[-3:] == [("user", "one"), ("assistant", "one"), ("user", "two")]
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
    (error(401, "bad", "UNAUTHENTICATED"), "auth_expired", False),
    (error(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"), "auth_expired", False),
    (error(403, "Your API key was reported as leaked.", "PERMISSION_DENIED"), "auth_expired", False),
    (error(403, "no", "PERMISSION_DENIED"), "permission", False),
    (error(404, "models/x is not found for API version v1beta", "NOT_FOUND"), "model_not_found", False),
    (error(429, "Please retry in 12.5s.", "RESOURCE_EXHAUSTED"), "rate_limited", True),
    (error(500, "oops", "INTERNAL"), "vendor_error", True),
    (
        error(400, "The input token count (9) exceeds the maximum number of tokens allowed (8).", "INVALID_ARGUMENT"),
        "context_overflow",
        False,
    ),
    (text("a", "b").broken("drop"), "network", True),
    (text("a", "b").broken("cut", after=1), "vendor_error", True),
    (text("a", "b").broken("error", after=1), "vendor_error", True),
]


async def test_each_failure_is_told_at_once_and_nothing_is_asked_twice(scene: Scene) -> None:
    for number, (reply, kind, retryable) in enumerate(FAILURES, 1):
        scene.api.script(reply)
        with pytest.raises(RunnerError) as failed:
            await scene.chat(user("hi"))
        assert (failed.value.kind, failed.value.retryable) == (kind, retryable), failed.value
        assert (failed.value.hint == KEY_HINT) == (kind == "auth_expired")
        assert len(scene.api.requests) == number


async def test_a_model_that_is_named_answers(scene: Scene) -> None:
    provider = scene.provider.with_model("gemini-9-x")
    answered = await provider.complete(ChatRequest.model_validate({"messages": user("hi")}))
    assert answered.model == scene.api.requests[-1].body["model"] == "gemini-9-x"


async def test_its_one_process_is_gone_once_a_session_is_closed_in_the_middle_of_an_answer(scene: Scene) -> None:
    others = scene.processes()
    session = await scene.provider.open()
    await session.prepare(SessionOptions(system="One of its own."))
    async with begun(session):
        (pid,) = scene.processes() - others
        async with asyncio.timeout(END_S):
            await session.aclose()
        assert not psutil.pid_exists(pid)
    assert scene.processes() == others


async def test_without_a_login_a_probe_says_what_mends_it_and_a_key_in_its_users_file_is_one(scene: Scene) -> None:
    env = {name: value for name, value in scene.provider.settings.env.items() if name != "GEMINI_API_KEY"}
    home = scene.world.root / "another-home"
    settings = scene.provider.settings.model_copy(update={"env": env | {"GEMINI_CLI_HOME": str(home)}})
    provider = GeminiProvider("gemini", settings, state_dir=scene.world.state / "no-login")
    with pytest.raises(NotAuthenticatedError) as missing:
        await provider.probe()
    assert "GEMINI_API_KEY" in str(missing.value.hint)
    (home / ".gemini").mkdir(parents=True)
    (home / ".gemini" / ".env").write_text("GEMINI_API_KEY=from-a-file\n")
    await provider.complete(ChatRequest.model_validate({"messages": user("hi")}))
    assert scene.api.requests[-1].headers["x-goog-api-key"] == "from-a-file"
    await provider.aclose()
