"""README's blocks for OpenAI-compatible servers, as they stand but for the address, with the real CLI."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.config import load_config
from runners.testing.apis.responses_api import ResponsesApi
from tests.capability_matrix import README
from tests.live.codex_lab import ENV
from tests.live.lab import AS_IT_IS, running_lab
from tests.world import World, user

pytestmark = [pytest.mark.live]

SECTION = re.compile(r"^### OpenAI-compatible servers\n(.*?)^### ", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
KEYS = {"OPENROUTER_API_KEY": "sk-router"}


def blocks() -> list[str]:
    section = SECTION.search(README.read_text(encoding="utf-8"))
    assert section is not None
    return BLOCK.findall(section[1])


async def test_each_server_in_readme_is_called_as_its_block_says(world: World, codex: Path) -> None:
    on_path = world.root / "bin"
    on_path.mkdir()
    (on_path / "codex").symlink_to(codex)
    world.env |= {"PATH": f"{on_path}{os.pathsep}{world.env['PATH']}", **KEYS, "NO_PROXY": ENV["NO_PROXY"]}
    async with ResponsesApi() as api:
        entries: dict[str, Any] = {}
        for block in blocks():
            # What the reader of a file takes is what was printed.
            [(name, _)] = load_config(world.config(block)).runners.items()
            [(name, entry)] = yaml.safe_load(block)["runners"].items()
            entries[name] = entry | AS_IT_IS | {"base_url": api.url}
        assert list(entries) == ["llamacpp", "vllm", "lmstudio", "openrouter"]
        async with running_lab(world, api, entries, runner="vllm") as lab, lab.connected():
            for name, entry in entries.items():
                answer = await lab.chat([{"role": "system", "content": "Be brief."}, *user("hi")], runner=name)
                assert (answer.result["content"], answer.result["model"]) == ("ok", entry["model"])
                received = api.requests[-1]
                assert received.body["model"] == entry["model"]
                assert [item["role"] for item in received.body["input"]] == ["developer", "user"]
                key = KEYS.get(entry.get("api_key_env", ""), entry.get("env", {}).get("VLLM_API_KEY"))
                assert received.headers.get("Authorization") == (f"Bearer {key}" if key else None)
            models = (await lab.wire.call("models"))["result"]["models"]
            listed = [model["model"] for model in models if model["runner"] == "lmstudio"]
            assert listed == entries["lmstudio"]["models"]
