"""What codex is started with, so that it is a model and no agent: pure.

A setting or a feature that a version does not know it ignores, with a line on stderr: `-c features.X=false` is used,
for `--disable X` ends one that does not know X. Facts are from 0.169.0 and 0.171.0.
"""

import json
from collections.abc import Iterator
from pathlib import Path

API_KEY_VARIABLE = "RUNNERD_CODEX_API_KEY"
"""Where the key of a server of the user's own stands for the CLI."""

_OWN_SERVER = "runnerd"

# What would offer tools, add words to the prompt, start programs or call an address that nobody listens at for ever.
# Some are on for certain models or logins only.
_FEATURES = (
    *("apps", "goals", "hooks", "image_generation", "in_app_browser", "memories", "multi_agent", "multi_agent_v2"),
    *("plugins", "remote_plugin", "shell_snapshot", "shell_tool", "skill_search", "sleep_tool", "tool_suggest"),
    *("unbounded_connection_retries", "unified_exec", "view_image", "workspace_dependencies"),
)
_SETTINGS = {
    "analytics.enabled": False,
    "check_for_update_on_startup": False,
    "include_apps_instructions": False,
    "include_collaboration_mode_instructions": False,
    "include_environment_context": False,
    "include_permissions_instructions": False,
    "model_verbosity": "medium",  # the API's own default: else the CLI asks some models to be brief
    "project_doc_max_bytes": 0,
    "project_root_markers": [],  # no directory above its own has a say
    "skills.bundled.enabled": False,
    "skills.include_instructions": False,
    "thread_unload_delay_secs": 0,
    "tools.experimental_request_user_input.enabled": False,
    "web_search": "disabled",
}


def arguments(catalog: Path, *, base_url: str | None, has_key: bool) -> Iterator[str]:
    """Those of `codex`, up to what the user adds; with `base_url` for the API of a server of the user's own."""
    settings = _SETTINGS | {f"features.{name}": False for name in _FEATURES} | {"model_catalog_json": str(catalog)}
    if base_url is not None:
        server = f"model_providers.{_OWN_SERVER}"
        settings |= {
            "model_provider": _OWN_SERVER,
            "show_raw_agent_reasoning": True,  # open models have no summary of what they think
            f"{server}.name": _OWN_SERVER,
            f"{server}.base_url": base_url,
            f"{server}.wire_api": "responses",
            # The daemon tries again by itself, and an answer that breaks would be said again from its beginning.
            f"{server}.request_max_retries": 0,
            f"{server}.stream_max_retries": 0,
        }
        if has_key:
            settings[f"{server}.env_key"] = API_KEY_VARIABLE
    yield "app-server"
    for name, value in settings.items():
        yield "-c"
        # JSON's booleans, numbers, strings and lists of these are TOML's.
        yield f"{name}={json.dumps(value)}"
