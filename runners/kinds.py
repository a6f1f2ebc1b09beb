"""Which code serves which `kind`; a provider's module is imported when a configured entry first needs it."""

from importlib import import_module
from importlib.metadata import entry_points

from runners.errors import ConfigError
from runners.provider import LlmProvider

ENTRY_POINTS = "runnerd.kinds"
_BUILT_IN = {
    "acp": "runners.providers.acp.provider:AcpProvider",
    "claude": "runners.providers.claude.provider:ClaudeProvider",
    "codex": "runners.providers.codex.provider:CodexProvider",
    "copilot": "runners.providers.copilot.provider:CopilotProvider",
    "echo": "runners.providers.echo:EchoProvider",
    "gemini": "runners.providers.gemini.provider:GeminiProvider",
    "jsonlines": "runners.providers.jsonlines.provider:JsonLinesProvider",
    "ollama": "runners.providers.ollama.provider:OllamaProvider",
    "terminal": "runners.providers.terminal.provider:TerminalProvider",
    "opencode": "runners.providers.opencode.provider:OpencodeProvider",
}


def known_kinds() -> list[str]:
    """Every kind that an entry may have: ours, and those that installed packages add by entry point."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def provider_class(kind: str) -> type[LlmProvider]:
    """The class that serves a kind; ConfigError for an unknown one, and for an entry point that is of no use."""
    if kind in _BUILT_IN:
        module, _, name = _BUILT_IN[kind].partition(":")
        found = getattr(import_module(module), name)
    else:
        points = entry_points(group=ENTRY_POINTS, name=kind)
        if not points:
            raise ConfigError(f"unknown kind {kind!r}; known are {', '.join(known_kinds())}")
        point = next(iter(points))
        try:
            found = point.load()
        except (Exception, SystemExit) as error:
            raise ConfigError(f"kind {kind!r}: {point.value} cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, LlmProvider)):
        raise ConfigError(f"kind {kind!r}: {found!r} is not an LlmProvider")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ConfigError(f"kind {kind!r}: {found!r} has no {', '.join(missing)}")
    return found
