"""Every recording of a one-shot mode goes through the translator, by the declarations in README."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runners.errors import ProcessExitedError, RunnerError
from runners.providers.jsonlines.events import Exited, JsonLinesTranslator
from runners.providers.jsonlines.settings import JsonLinesSettings
from runners.stream import ChatChunk, Reasoning, Start, Text, UsageReport
from runners.translator import Event
from tests.subjects.jsonlines import declared
from tests.transcripts import records, translate

ROOT = Path(__file__).parent / "transcripts" / "jsonlines"

OPENCODE = """
kind: jsonlines
agent: true
binary: opencode
lines:
  whole_text: type == 'text' && part.text
  reasoning: type == 'reasoning' && part.text
  stop_reason: part.reason
  usage:
    at: part.tokens
    input_tokens: sum([input, cache.read, cache.write])
    cached_input_tokens: cache.read
    output_tokens: sum([output, reasoning])
    reasoning_tokens: reasoning
  error: {message: error.data.message, status: error.data.statusCode}
stop_reasons: {stop: end_turn}
"""
CLAUDE = Path(__file__).parent / "transcripts" / "claude" / "2.1.197"
KEYS = ["type", "item", "text", "event", "delta", "message", "content", "usage", "error", "status", "stats", "role"]

HELLO = (0, "end_turn", "Hello from the stand-in model.")
FAILED = (1, "error:process_exited", "")
EXPECTED: dict[str, dict[str, tuple[int, str, str]]] = {
    "codex": {
        **dict.fromkeys(("exec-chat-before", "exec-chat-stripped", "exec-chat-stripped2", "exec-text"), HELLO),
        **dict.fromkeys(("exec-dashprompt-argv-dd", "exec-dashprompt-stdin", "exec-reasoning"), HELLO),
        "exec-chat-stripped3-unknownmodel": HELLO,
        **dict.fromkeys(("exec-chat-stripped-fallbackmodel", "exec-emptystdin", "exec-notgit", "exec-sigint"), FAILED),
        "exec-dashprompt-argv": (2, "error:process_exited", ""),
        "exec-drop-noretry": (1, "error:network", ""),
        "exec-e401-defaultretry": (1, "error:auth_expired", ""),
        "exec-e429-defaultretry": (1, "error:rate_limited", ""),
        "exec-e429-noretry": (1, "error:rate_limited", ""),
        "exec-e500-defaultretry": (1, "error:vendor_error", ""),
        "exec-nokey": (1, "error:vendor_error", ""),
        "exec-sigkill": (-9, "end_turn", "".join(f"tok{number} " for number in range(40))),
        "exec-sigterm": (-15, "error:process_exited", ""),
    },
    "gemini": {
        **dict.fromkeys(("atfile-stdin", "chat-coreempty", "dash-argv-eq", "slash-stdin", "stdin-only"), HELLO),
        **dict.fromkeys(("stdin-pempty", "text-skiptrust", "tool"), HELLO),
        "emoji": (0, "end_turn", "Hi \U0001f600 café \U0001f468\u200d\U0001f469\u200d\U0001f467 你好 end"),
        "e400": (144, "error:invalid_request", ""),
        "e401-tmpdir": (145, "error:auth_expired", ""),
        "e429": (-9, "error:process_exited", ""),  # it was still trying again
        "emptystdin": (42, "error:invalid_request", ""),
        "json": (0, "error:process_exited", ""),  # one object on many lines
        "json-e401": (145, "error:auth_expired", ""),
        **dict.fromkeys(
            ("norelaunch-sigint", "norelaunch-sigterm"), (0, "error:process_exited", "tok0 tok1 tok2 tok3 ")
        ),
        **dict.fromkeys(("sigint", "sigterm"), (0, "end_turn", "".join(f"tok{number} " for number in range(40)))),
        "text": (55, "error:process_exited", ""),
    },
    "opencode": {
        **dict.fromkeys(("atfile-stdin", "run-chat", "run-chat-argv", "run-dash-stdin", "run-reasoning"), HELLO),
        **dict.fromkeys(("run-stdin", "run-text", "run-tool"), HELLO),
        "run-dash-argv": FAILED,
        "run-e429": (1, "error:rate_limited", ""),
        "run-sigint": (-2, "error:process_exited", ""),
    },
}
DECLARED = {
    cli: JsonLinesSettings.model_validate(yaml.safe_load(OPENCODE) if cli == "opencode" else declared(cli))
    for cli in ("claude", *EXPECTED)
}
NAMES = [(cli, name) for cli, names in EXPECTED.items() for name in names]


def exited(code: int) -> Exited:
    return Exited(ProcessExitedError(f"the CLI exited with code {code}", exit_code=code))


def turn(cli: str, name: str) -> tuple[list[ChatChunk], str | None]:
    told = [*records(ROOT / cli / f"{name}.jsonl"), exited(EXPECTED[cli][name][0])]
    return translate(told, JsonLinesTranslator(cli, DECLARED[cli], "asked"))


def joined(chunks: list[ChatChunk], kind: type[Text] | type[Reasoning]) -> str:
    return "".join(chunk.chunk for chunk in chunks if isinstance(chunk, kind))


def the_usage(chunks: list[ChatChunk]) -> Any:
    [report] = [chunk for chunk in chunks if isinstance(chunk, UsageReport)]
    return report.usage


def test_every_recording_is_expected() -> None:
    found = {cli.name: {path.stem for path in cli.glob("*.jsonl")} for cli in ROOT.iterdir()}
    assert found == {cli: set(names) for cli, names in EXPECTED.items()}


@pytest.mark.parametrize(("cli", "name"), NAMES, ids="/".join)
def test_a_recording_ends_as_its_run_did(cli: str, name: str) -> None:
    chunks, end = turn(cli, name)
    _, expected, text = EXPECTED[cli][name]
    assert (end, joined(chunks, Text)) == (expected, text)


def test_usage_is_told_in_our_terms() -> None:
    codex = the_usage(turn("codex", "exec-text")[0])
    assert (codex.input_tokens, codex.cached_input_tokens) == (111, 7)
    assert (codex.output_tokens, codex.reasoning_tokens, codex.cost_usd) == (22, 5, None)
    gemini = the_usage(turn("gemini", "stdin-only")[0])
    assert (gemini.input_tokens, gemini.cached_input_tokens, gemini.output_tokens) == (111, 7, 22)
    assert gemini.reasoning_tokens is None
    opencode = the_usage(turn("opencode", "run-text")[0])
    assert (opencode.input_tokens, opencode.cached_input_tokens) == (111, 7)
    assert (opencode.output_tokens, opencode.reasoning_tokens) == (22, 5)


def test_the_counts_of_several_model_calls_are_added() -> None:
    usage = the_usage(turn("opencode", "run-tool")[0])
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (222, 14, 44)


def test_reasoning_is_told() -> None:
    assert joined(turn("codex", "exec-reasoning")[0], Reasoning) == "**Thinking** about it."
    assert joined(turn("opencode", "run-reasoning")[0], Reasoning) == "Thinking about it."


def test_a_line_tells_which_model_answers_and_else_it_is_the_one_that_was_asked() -> None:
    models = {
        cli: [c.model for c in turn(cli, name)[0] if isinstance(c, Start)] for cli, name in NAMES if "text" in name
    }
    assert models["gemini"] == []
    assert models["codex"] == models["opencode"] == ["asked"]
    [start] = [chunk for chunk in turn("gemini", "stdin-only")[0] if isinstance(chunk, Start)]
    assert start.model == "gemini-2.5-flash"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("02_partial_small", "end_turn"),
        ("02_partial_small_think", "end_turn"),
        ("04_guard_oneshot_slash", "error:vendor_error"),
        ("06_e401", "error:auth_expired"),
        ("06_e429_r0", "error:rate_limited"),
        ("06_loggedout", "error:not_authenticated"),
        ("06_refused_conn", "error:vendor_error"),
    ],
)
def test_claudes_one_shot_mode_is_read_by_its_declaration(name: str, expected: str) -> None:
    chunks, end = translate(
        list(records(CLAUDE / f"{name}.jsonl")), JsonLinesTranslator("claude", DECLARED["claude"], "asked")
    )
    assert end == expected
    if end == "end_turn":
        assert joined(chunks, Text)
        assert the_usage(chunks).output_tokens
        assert bool(joined(chunks, Reasoning)) == name.endswith("think")
    else:
        assert chunks == []


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, 0, -1, 1.5, "result", "assistant", "text", []]),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=6,
)


@given(cli=st.sampled_from(["claude", *EXPECTED]), event=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_no_line_breaks_the_translator(cli: str, event: Event) -> None:
    translator = JsonLinesTranslator(cli, DECLARED[cli], "asked")
    with suppress(RunnerError):
        translator.feed(event)
