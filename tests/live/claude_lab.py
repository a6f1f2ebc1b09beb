"""A lab with real claude CLIs, and a stand-in for the Messages API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runners.testing.apis.messages_api import MessagesApi
from tests.live.lab import AS_IT_IS, Entries, Json, Lab, running_lab
from tests.world import World

KEY = {"ANTHROPIC_API_KEY": "dummy"}
PLAN = {"CLAUDE_CODE_OAUTH_TOKEN": "dummy"}
NO_LOGIN: dict[str, str] = {}


@asynccontextmanager
async def claude_lab(world: World, binary: Path, entries: Entries) -> AsyncIterator[Lab]:
    """A running lab. `entries` are those of runners.yaml, each less what all of them share."""
    async with MessagesApi() as api:
        runners = {name: _entry(binary, api.url, entry) for name, entry in entries.items()}
        async with running_lab(world, api, runners, runner="claude") as lab:
            yield lab


def _entry(binary: Path, url: str, entry: Json) -> Json:
    env = {"ANTHROPIC_BASE_URL": url} | entry.get("env", KEY)
    return {"kind": "claude", "binary": str(binary)} | AS_IT_IS | entry | {"env": env}
