"""Every recorded transcript of gemini and opencode on ACP goes through their translators."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.providers.acp.events import AcpTranslator
from runners.providers.gemini.dialect import DIALECT as GEMINI
from runners.providers.opencode.dialect import DIALECT as OPENCODE
from runners.stream import ChatChunk, Reasoning, Text, UsageReport, Warn
from runners.translator import Event
from tests.transcripts import records, translate
from tests.transcripts.expected_acp import EXPECTED, REASONING, TEXTS, USAGE

ROOT = Path(__file__).parent / "transcripts"
VERSIONS = {"gemini": "0.61.0", "opencode": "1.18.33"}
DIALECTS = {"gemini": GEMINI, "opencode": OPENCODE}
NAMES = [(kind, name) for kind, told in EXPECTED.items() for name in told]
Turn = tuple[str, str, int]


def turns(kind: str, name: str) -> Iterator[list[Event]]:
    """What a session told from each prompt up to its answer, as the driver hands it on."""
    asked: int | None = None
    turn: list[Event] = []
    for record in records(ROOT / kind / VERSIONS[kind] / f"{name}.jsonl"):
        message = record["msg"]
        if record["dir"] == ">" and message["method"] == "session/prompt":
            asked, turn = message["id"], []
        elif asked is not None and message.get("method") == "session/update":
            update = message["params"]["update"]
            turn.append({**update, "type": update["sessionUpdate"]})
        elif asked is not None and message.get("id") == asked and "method" not in message:
            failed = message.get("error")
            turn.append({**failed, "type": "failed"} if failed else {**message["result"], "type": "result"})
            yield turn
            asked = None
    if asked is not None:
        yield turn


def told(turn: Turn) -> tuple[list[ChatChunk], str | None]:
    kind, name, index = turn
    return translate(list(turns(kind, name))[index], AcpTranslator(kind, "asked", DIALECTS[kind]))


def test_every_recording_is_expected_to_mean_something() -> None:
    for kind, version in VERSIONS.items():
        assert {path.stem for path in (ROOT / kind / version).glob("acp-*.jsonl")} == set(EXPECTED[kind])


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_turn_means_what_was_worked_out(kind: str, name: str) -> None:
    words = [told((kind, name, index))[1] or "cut" for index in range(len(list(turns(kind, name))))]
    assert " ".join(words) == EXPECTED[kind][name]


@pytest.mark.parametrize("turn", TEXTS)
def test_its_text_is_all_that_its_model_said(turn: Turn) -> None:
    assert "".join(chunk.chunk for chunk in told(turn)[0] if isinstance(chunk, Text)) == TEXTS[turn]


@pytest.mark.parametrize("turn", REASONING)
def test_its_thoughts_are_told(turn: Turn) -> None:
    assert "".join(chunk.chunk for chunk in told(turn)[0] if isinstance(chunk, Reasoning)) == REASONING[turn]


@pytest.mark.parametrize("turn", USAGE)
def test_its_cost_is_told(turn: Turn) -> None:
    usages = [chunk.usage for chunk in told(turn)[0] if isinstance(chunk, UsageReport)]
    assert [(usage.input_tokens, usage.output_tokens) for usage in usages] == [USAGE[turn]]


@pytest.mark.parametrize("kind", VERSIONS)
def test_a_tool_of_the_clis_own_is_warned_of_once(kind: str) -> None:
    warnings = [chunk for chunk in told((kind, "acp-tool", 0))[0] if isinstance(chunk, Warn)]
    assert len(warnings) == 1
