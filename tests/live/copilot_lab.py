"""A lab with real copilot CLIs, and a stand-in for the chat completions API of a user's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runners.testing.apis.completions_api import CompletionsApi
from tests.live.install import COPILOT_CACHE
from tests.live.lab import AS_IT_IS, Entries, Json, Lab, running_lab
from tests.world import World

MODEL = "gpt-x"
NO_LOGIN: Json = {"provider": None, "model": None}
# Nothing beyond loopback is ever reached: not by a CLI without a login either, which would ask for one.
ENV = {
    "XDG_CACHE_HOME": str(COPILOT_CACHE),
    "KEY": "dummy",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}


@asynccontextmanager
async def copilot_lab(world: World, binary: Path, entries: Entries) -> AsyncIterator[Lab]:
    """A running lab. `entries` are those of runners.yaml, each less what all of them share; None takes a key away."""
    async with CompletionsApi() as api:
        runners = {name: _entry(binary, api.url, entry) for name, entry in entries.items()}
        async with running_lab(world, api, runners, runner="copilot") as lab:
            yield lab


def _entry(binary: Path, url: str, entry: Json) -> Json:
    ours = {"kind": "copilot", "binary": str(binary), "model": MODEL}
    provider = entry.get("provider", {})
    if provider is not None:
        provider = {"base_url": url, "api_key_env": "KEY"} | provider
    whole = ours | AS_IT_IS | entry | {"provider": provider, "env": ENV | entry.get("env", {})}
    return {name: value for name, value in whole.items() if value is not None}
