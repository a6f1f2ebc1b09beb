"""opencode's configuration as a model's: what it is started with in place of everything that its user has configured.

Facts are from 1.18.3 and 1.18.33.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLUGIN = Path(__file__).with_name("plugin.js")
ZEN = "opencode"
"""The provider that opencode runs itself. It answers without a login too, and then with models that cost their users no
money: it is asked only where it is named."""
PLUGINS_LOCK = json.dumps({"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}})
"""A package-lock.json by which it takes the package for plugins to be there."""

_OFF = {"*": False}
_AGENT = "chat"
_SWITCHED_OFF = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "PROJECT_CONFIG", "CLAUDE_CODE")


def content(model: str | None, provider: Mapping[str, Any]) -> str:
    """The text of OPENCODE_CONFIG_CONTENT. `model` is as opencode names it, `provider/model`; None leaves it to it."""
    chat = {"mode": "primary", "prompt": "-", "tools": _OFF, "permission": {"*": "deny"}}
    is_zen_named = ZEN in provider or (model or "").startswith(f"{ZEN}/")
    config: dict[str, Any] = {
        "agent": {_AGENT: chat, "title": {"disable": True}},
        "default_agent": _AGENT,
        "plugin": [PLUGIN.as_uri()],
        "provider": dict(provider),
        "disabled_providers": [] if is_zen_named else [ZEN],
        "compaction": {"auto": False, "prune": False},
        "autoupdate": False,
        "share": "disabled",
        "snapshot": False,
        "lsp": False,
        "formatter": False,
    }
    return json.dumps(config | ({"model": model, "small_model": model} if model else {}))


def furnish(place: Path) -> dict[str, str]:
    """Makes the directories of a process below `place`, and says by which variables it is to find them.

    Its user's logins stay where they are, in XDG_DATA_HOME, and so do the packages that it has installed of its own.
    """
    config, state, home, sessions = (place / name for name in ("config", "state", "home", "sessions"))
    for directory in (config / "opencode" / "node_modules", state, home, sessions):
        directory.mkdir(parents=True)
    # It would else install that package from npm at each start, and wait for that before it loads a plugin.
    (config / "opencode" / "package-lock.json").write_text(PLUGINS_LOCK, encoding="utf-8")
    return {
        **{f"OPENCODE_DISABLE_{what}": "1" for what in _SWITCHED_OFF},
        "XDG_CONFIG_HOME": str(config),
        "XDG_STATE_HOME": str(state),
        # Where it looks for ~/.opencode and ~/.claude; what else reads HOME, such as a cloud's SDK, has the user's.
        "OPENCODE_TEST_HOME": str(home),
        "OPENCODE_DB": ":memory:",
        "RUNNERD_SESSIONS": str(sessions),
    }
