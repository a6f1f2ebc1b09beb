"""The home that a gemini process has in place of its user's: our settings, and of the user's files the login alone.

So nothing of the user's reaches the model: no GEMINI.md, no settings, hooks, extensions, commands or MCP servers. And
`projects.json.lock`, which a gemini that was ended may leave behind and the next one waits 13.7 s for (0.61.0), is
nobody else's: each process has a home of its own, and no lock of one that the user runs is touched.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "gemini-api-key"
"""The way in which it logs in with a key."""

_LOGIN_FILES = ("oauth_creds.json", "google_accounts.json", "gemini-credentials.json")
_SETTINGS: dict[str, Any] = {
    "tools": {"core": []},
    "skills": {"enabled": False},
    "hooksConfig": {"enabled": False},
    "experimental": {"enableAgents": False},
    "context": {"includeDirectoryTree": False},
    # What would sum up a long conversation, and ask the model whether it goes round in circles.
    "model": {"compressionThreshold": 1, "disableLoopDetection": True},
    # Runnerd tries again itself; the CLI would do so for minutes, in silence.
    "general": {"maxAttempts": 1, "enableAutoUpdate": False, "enableAutoUpdateNotification": False},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
}


def furnish(home: Path, env: Mapping[str, str]) -> str:
    """Makes the home of a process that is to have the environment `env`, with the login that this user has.

    Returns the way in which it logs in, by the CLI's own name.
    """
    theirs = Path(env.get("GEMINI_CLI_HOME") or env.get("HOME") or Path.home()) / ".gemini"
    ours = home / ".gemini"
    ours.mkdir(parents=True)
    for name in _LOGIN_FILES:
        if (theirs / name).exists():
            # A link: the CLI writes a token that it has refreshed to where it was.
            (ours / name).symlink_to(theirs / name)
    way = _way_to_log_in(theirs, env)
    settings = _SETTINGS | {"security": {"auth": {"selectedType": way}}}
    (ours / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return way


def workplace(place: Path, env: Mapping[str, str]) -> None:
    """Makes the directory that a process works in, empty but for the variables that its user keeps for gemini.

    The CLI reads the first file of them that it finds here or above, and above may be anything.
    """
    theirs = Path(env.get("GEMINI_CLI_HOME") or env.get("HOME") or Path.home()) / ".gemini" / ".env"
    ours = place / ".gemini" / ".env"
    ours.parent.mkdir(parents=True)
    if theirs.exists():
        ours.symlink_to(theirs)
    else:
        ours.touch()


def _way_to_log_in(theirs: Path, env: Mapping[str, str]) -> str:
    """What is named for this runner comes first, then what the user chose in the CLI, then what is there."""
    if env.get("GEMINI_API_KEY"):
        return KEY
    if env.get("GOOGLE_GENAI_USE_VERTEXAI") == "true":
        return "vertex-ai"
    try:
        chosen = json.loads((theirs / "settings.json").read_text(encoding="utf-8"))["security"]["auth"]["selectedType"]
    except (OSError, ValueError, KeyError, TypeError):
        # None was chosen, or the file has comments, which the CLI allows.
        chosen = None
    if isinstance(chosen, str):
        return chosen
    return "oauth-personal" if (theirs / "oauth_creds.json").exists() else KEY
