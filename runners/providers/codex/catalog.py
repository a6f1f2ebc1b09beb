"""What codex knows of its models, less their hands: pure.

The CLI's catalog gives most models tools that no setting takes away (`apply_patch`, and a code interpreter that the
others are only seen from), and a role in a team of agents. So it is given one without. Facts are from 0.169.0 and
0.171.0.
"""

from collections.abc import Iterator
from typing import Any

from runners.messages import ModelInfo

_WINDOW = 1_000_000_000

_TOOL_LESS: dict[str, Any] = {
    "apply_patch_tool_type": None,
    "base_instructions": "",
    "experimental_supported_tools": [],
    "model_messages": None,
    "multi_agent_version": None,
    "shell_type": "disabled",
    "supports_parallel_tool_calls": True,
    "supports_search_tool": False,
    "tool_mode": None,
    # Near its window a conversation would be summed up, and behind 10,000 tokens the result of a tool be cut: what
    # does not fit is the API's to refuse.
    "context_window": _WINDOW,
    "max_context_window": _WINDOW,
    "truncation_policy": {"mode": "tokens", "limit": _WINDOW},
}
_UNKNOWN: dict[str, Any] = {
    "slug": "",  # the CLI takes the entry whose name is the longest beginning of a model's
    "display_name": "",
    "priority": 0,
    "supported_in_api": True,
    "supported_reasoning_levels": [],
    "support_verbosity": False,
    "visibility": "none",
}
"""A model that the catalog does not have: one that is new, or of a server of the user's own."""


def tool_less(catalog: dict[str, Any] | None) -> dict[str, Any]:
    """The vendor's catalog for our use; None where its models are of no interest."""
    models = catalog["models"] if catalog else []
    return {"models": [model | _TOOL_LESS for model in [*models, _UNKNOWN]]}


def listed(catalog: dict[str, Any]) -> Iterator[ModelInfo]:
    """The models that the vendor's catalog shows its users."""
    for model in sorted(catalog["models"], key=lambda model: model["priority"]):
        if model["visibility"] == "list":
            yield ModelInfo(
                model["slug"],
                context_window=model.get("context_window"),
                images="image" in model.get("input_modalities", ["image"]),
                reasoning=bool(model.get("supported_reasoning_levels")),
            )
