"""A lab with real codex CLIs, and a stand-in for the Responses API of a user's own server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runners.testing.apis.responses_api import ResponsesApi
from tests.live.lab import AS_IT_IS, Entries, Json, Lab, running_lab
from tests.world import World

MODEL = "gpt-x"
WITH_LOGIN: Json = {"base_url": None, "api_key_env": None, "model": None}
"""The user's login in place of a server of the user's own."""
# Nothing beyond loopback is ever reached: not by a CLI without a login either.
ENV = {"KEY": "dummy", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}


@asynccontextmanager
async def codex_lab(world: World, binary: Path, entries: Entries) -> AsyncIterator[Lab]:
    """A running lab. `entries` are those of runners.yaml, each less what all of them share; None takes a key away."""
    async with ResponsesApi() as api:
        runners = {name: _entry(binary, api.url, entry) for name, entry in entries.items()}
        async with running_lab(world, api, runners, runner="codex") as lab:
            yield lab


def _entry(binary: Path, url: str, entry: Json) -> Json:
    ours = {"kind": "codex", "binary": str(binary), "model": MODEL, "base_url": url, "api_key_env": "KEY"}
    whole = ours | AS_IT_IS | entry | {"env": ENV | entry.get("env", {})}
    return {name: value for name, value in whole.items() if value is not None}
