"""The table in README of what each runner can do, made from the code: `python -m tests.capability_matrix` writes it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from runners.kinds import provider_class
from runners.provider import LlmProvider
from runners.providers.acp.provider import AcpProvider

README = Path(__file__).parents[1] / "README.md"
KINDS = ("claude", "copilot", "codex", "gemini", "opencode", "ollama", "acp", "jsonlines", "terminal", "echo")
NEEDED: dict[str, dict[str, Any]] = {
    "acp": {"agent": True, "binary": "agent"},
    "jsonlines": {"agent": True, "binary": "cli", "lines": {"whole_text": "text"}},
    "terminal": {"agent": True, "binary": "cli", "prompt": "> "},
}
"""What an entry of a kind must say."""
MOST: dict[str, dict[str, Any]] = {
    "jsonlines": {
        **NEEDED["jsonlines"],
        "args": ["{system}", "{effort}"],
        "lines": {"text": "text", "reasoning": "reasoning", "usage": {"input_tokens": "tokens"}},
        "system_prompt": "replace",
        "exact_text": True,
    }
}
"""What it may say that its capabilities follow from."""
ABLE = {
    "protocolVersion": 1,
    "agentCapabilities": {"promptCapabilities": {"image": True}, "mcpCapabilities": {"http": True}},
}
"""What an ACP agent may say of itself."""

BEGIN, END = "<!-- capabilities: made by `python -m tests.capability_matrix` -->\n", "<!-- end of capabilities -->\n"


def matrix() -> str:
    """The table, as each kind claims it with its default settings."""
    claims = {kind: _claims(kind) for kind in KINDS}
    lines = [f"| | {' | '.join(KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    lines += [
        f"| {name.replace('_', ' ')} | {' | '.join(_cell(claims[kind][name]) for kind in KINDS)} |"
        for name in claims[KINDS[0]]
    ]
    return "\n".join(lines) + "\n"


def _claims(kind: str) -> dict[str, Any]:
    needed = NEEDED.get(kind, {})
    least, most = (_made(kind, entry) for entry in (needed, MOST.get(kind, needed)))
    if isinstance(most, AcpProvider) and kind == "acp":
        from acp.schema import InitializeResponse  # 0.7 s of the processor, and everybody imports README from here

        most.agents.known.info, most.agents.known.has_usage = InitializeResponse.model_validate(ABLE), True
    most_claims = asdict(most.capabilities())
    word = "as it says" if kind == "acp" else "as declared"
    return {name: claim if claim == most_claims[name] else word for name, claim in asdict(least.capabilities()).items()}


def _made(kind: str, entry: dict[str, Any]) -> LlmProvider:
    provider = provider_class(kind)
    settings = provider.settings_type.model_validate({"kind": kind, **entry})
    return provider(kind, settings, state_dir=Path("unused"))


def _cell(value: Any) -> str:
    return {True: "yes", False: "-"}[value] if isinstance(value, bool) else str(value)


def with_matrix(text: str) -> str:
    """README with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + matrix() + END + after


if __name__ == "__main__":
    README.write_text(with_matrix(README.read_text(encoding="utf-8")), encoding="utf-8")
