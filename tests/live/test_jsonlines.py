"""The declarations of README's JSON lines, as they stand there, on the real CLIs, beside the runners of our own."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from daemon.config import load_config
from runners.errors import AuthExpiredError, RateLimitedError, VendorError
from runners.kinds import provider_class
from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.jsonlines.provider import JsonLinesProvider
from runners.testing import request
from runners.testing.apis import gemini_api, messages_api, responses_api
from runners.testing.apis.stand_in import BaseError, BaseReply, Json, StandIn
from tests.conftest import real_cli
from tests.live.install import newest
from tests.subjects.jsonlines import declared, loaded
from tests.world import World

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

SYSTEM = "Be brief, or else."
NO_PROXY = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
CODEX_CONFIG = """
model_provider = "standin"
check_for_update_on_startup = false
[model_providers.standin]
name = "standin"
base_url = "{url}"
wire_api = "responses"
env_key = "KEY"
request_max_retries = 0
stream_max_retries = 0
"""


GEMINI_SETTINGS: Json = {
    "security": {"auth": {"selectedType": "gemini-api-key"}},  # else it takes a base URL for a gateway
    "general": {"maxAttempts": 1},
    "privacy": {"usageStatisticsEnabled": False},
}


@dataclass(frozen=True)
class Cli:
    """A declared CLI in a world of its own, and what is behind it. `built_in` is our own runner for it."""

    name: str
    api: StandIn
    declared: JsonLinesProvider
    built_in: LlmProvider
    says: Callable[[], BaseReply]
    fails: Callable[[int], BaseError]


@asynccontextmanager
async def claude(world: World) -> AsyncIterator[Cli]:
    async with messages_api.MessagesApi() as api:
        quiet = {"DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        env = {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "dummy"} | quiet
        yield Cli(
            "claude",
            api,
            *both(world, "claude", env),
            lambda: messages_api.text("Hel", "lo", thinking="hm", usage={"cache_read_input_tokens": 5}),
            lambda status: messages_api.error(status, "an_error", "no"),
        )


@asynccontextmanager
async def codex(world: World) -> AsyncIterator[Cli]:
    async with responses_api.ResponsesApi() as api:
        put(world.home / ".codex" / "config.toml", CODEX_CONFIG.format(url=api.url))
        yield Cli(
            "codex",
            api,
            *both(world, "codex", {"KEY": "dummy"}, base_url=api.url, api_key_env="KEY"),
            lambda: responses_api.text("Hel", "lo", reasoning="hm"),
            lambda status: responses_api.error(status, "no"),
        )


@asynccontextmanager
async def gemini(world: World) -> AsyncIterator[Cli]:
    async with gemini_api.GeminiApi() as api:
        put(world.home / ".gemini" / "settings.json", json.dumps(GEMINI_SETTINGS))
        env = {"GEMINI_API_KEY": "dummy", "GOOGLE_GEMINI_BASE_URL": api.url}
        yield Cli(
            "gemini",
            api,
            *both(world, "gemini", env),
            lambda: gemini_api.text("Hel", "lo"),
            lambda status: gemini_api.error(status, "no", "SOME_STATUS"),
        )


CLIS = {"claude": claude, "codex": codex, "gemini": gemini}


def put(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")


def both(world: World, name: str, env: Json, **own: str) -> tuple[JsonLinesProvider, LlmProvider]:
    """The runner that README declares and our own, with what its entry needs, on the same CLI."""
    at: Json = {"binary": str(real_cli(name, newest(name))), "env": NO_PROXY | env}
    made = loaded(world, declared(name), **at)
    env = {"HOME": str(world.home)} | at["env"]
    entry = {"kind": name, "model": made.settings.model, **at, **own, "env": env}
    settings = load_config(world.config(json.dumps({"runners": {"own": entry}}))).runners["own"]
    return made, provider_class(name)("own", settings, state_dir=world.state / "own")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLIS)
async def cli(request: pytest.FixtureRequest) -> AsyncIterator[Cli]:
    world = World()
    try:
        async with CLIS[request.param](world) as made:
            yield made
            await made.built_in.aclose()
    finally:
        world.close()


def asked() -> ChatRequest:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "hi"}]
    return ChatRequest.model_validate({"messages": messages})


async def test_a_declared_cli_says_what_our_own_runner_says(cli: Cli) -> None:
    cli.api.answer = lambda _body: cli.says()
    answer = await cli.declared.complete(asked())
    assert (answer.content, answer.stop_reason, answer.warnings) == ("Hello", "end_turn", [])
    assert answer.usage.input_tokens
    assert answer.usage.output_tokens
    assert answer.reasoning == ("hm" if cli.declared.capabilities().reasoning else None)
    sent = cli.api.requests[-1].raw.decode()
    assert SYSTEM in sent
    assert len(cli.api.requests) == 1
    own = await cli.built_in.complete(asked())
    assert (own.content, own.model) == (answer.content, answer.model)
    # A CLI's other mode may tell less of what an answer cost.
    told = {name: count for name, count in asdict(own.usage).items() if count is not None}
    assert told.items() <= asdict(answer.usage).items()


@pytest.mark.parametrize(("status", "kind"), [(401, AuthExpiredError), (429, RateLimitedError)])
async def test_a_failure_is_of_its_kind(cli: Cli, status: int, kind: type[Exception]) -> None:
    cli.api.answer = lambda _body: cli.fails(status)
    with pytest.raises(kind):
        await cli.declared.complete(asked())
    assert not cli.declared.sessions


async def test_health_tells_the_version_and_the_login(cli: Cli) -> None:
    health = await cli.declared.health_check()
    assert health.version
    # The key of a model API of one's own is no login of codex, and gemini has no word for it.
    logins = {"claude": (True, True), "codex": (False, False), "gemini": (True, None)}
    assert (health.ok, health.authenticated) == logins[cli.name]


@pytest.mark.parametrize("cli", ["claude"], indirect=True)
async def test_claude_reads_no_file_and_a_command_of_its_own_is_no_answer(cli: Cli) -> None:
    cli.api.answer = lambda _body: cli.says()
    secret = cli.declared.directory("cwd") / "secret.txt"
    secret.write_text("the secret")
    await cli.declared.complete(request("look at @secret.txt"))
    secret.unlink()
    assert b"the secret" not in cli.api.requests[-1].raw
    with pytest.raises(VendorError, match="/help"):
        await cli.declared.complete(request("/help"))
