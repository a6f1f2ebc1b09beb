"""Which kinds are recorded, and how each is made to call a stand-in in its vendor's place."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.testing.recording.answers import COMPLETIONS, GEMINI, MESSAGES, RESPONSES, Api
from runners.testing.recording.scenarios import CUT

Json = dict[str, Any]


@dataclass(frozen=True)
class Vendor:
    """How a kind is recorded: by which API, with which entry of runners.yaml (its `env` too) for its address.

    The scenarios named in `without` are not played: what its CLI makes of them says nothing.
    """

    api: Api
    entry: Callable[[str], Json]
    without: tuple[str, ...] = ()


def _claude(url: str) -> Json:
    return {"env": {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "dummy"}}


def _codex(url: str) -> Json:
    return {"model": "gpt-x", "base_url": url, "api_key_env": "KEY", "env": {"KEY": "dummy"}}


def _copilot(url: str) -> Json:
    # Its user's: it unpacks 235 MB there, once for each version, and keeps nothing else in it.
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    provider = {"base_url": url, "api_key_env": "KEY"}
    return {"model": "gpt-x", "provider": provider, "env": {"KEY": "dummy", "XDG_CACHE_HOME": cache}}


def _gemini(url: str) -> Json:
    return {"env": {"GEMINI_API_KEY": "dummy", "GOOGLE_GEMINI_BASE_URL": url}}


def _opencode(url: str) -> Json:
    server = {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": url, "apiKey": "dummy"}}
    return {"model": "standin/gpt-x", "provider": {"standin": server | {"models": {"gpt-x": {}}}}, "env": {}}


VENDORS = {
    "claude": Vendor(MESSAGES, _claude),
    "codex": Vendor(RESPONSES, _codex),
    "copilot": Vendor(COMPLETIONS, _copilot),
    "gemini": Vendor(GEMINI, _gemini, without=(CUT,)),  # it tells such an answer as a whole one
    "opencode": Vendor(COMPLETIONS, _opencode),
}

UNRECORDED = {
    "echo": "its CLI is runnerd's own",
    "ollama": "runnerd speaks with its API, and there is no stand-in for the models behind that",
    "acp": "what its CLI calls is not known",
    "jsonlines": "what its CLI tells stands in its entry",
    "terminal": "its CLI tells no events",
}
"""Why the other kinds are not."""
