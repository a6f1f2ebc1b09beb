"""Which runner and which model a client means by a name."""

from pathlib import Path

import pytest

from daemon.config import load_config
from daemon.registry import Registry
from runners.errors import ModelNotFoundError

CONFIG = """\
aliases: {fast: "claude:haiku", parrot: echo, "a:b": "second:c:d"}
runners:
  echo: {kind: echo}
  claude: {kind: claude, models: [sonnet, opus, "llama3.2:3b"]}
  second: {kind: claude, model: mine, models: [mine, opus, only-here]}
  other-echo: {kind: echo, model: request}
"""


def registry(tmp_path: Path, text: str = CONFIG) -> Registry:
    path = tmp_path / "runners.yaml"
    path.write_text(text)
    return Registry(load_config(path), tmp_path / "state")


@pytest.mark.parametrize(
    ("reference", "runner", "model"),
    [
        ("claude:opus", "claude", "opus"),
        ("second:opus", "second", "opus"),
        ("claude:not-listed", "claude", "not-listed"),
        ("claude:llama3.2:3b", "claude", "llama3.2:3b"),
        ("second:a:b:c", "second", "a:b:c"),
        ("claude", "claude", ""),
        ("second", "second", ""),
        ("claude:", "claude", ""),
        ("fast", "claude", "haiku"),
        ("parrot", "echo", ""),
        ("a:b", "second", "c:d"),
        ("sonnet", "claude", "sonnet"),
        ("opus", "claude", "opus"),
        ("only-here", "second", "only-here"),
        ("llama3.2:3b", "claude", "llama3.2:3b"),
        ("echo", "echo", ""),
        ("echo:request", "echo", "request"),
        ("other-echo", "other-echo", ""),
        (None, "claude", ""),
    ],
)
def test_a_name_means_one_runner_and_one_model(tmp_path: Path, reference: str | None, runner: str, model: str) -> None:
    route = registry(tmp_path).resolve(reference)
    assert (route.runner.name, route.model) == (runner, model)


@pytest.mark.parametrize("reference", ["request", "", ":", ":opus", "Claude", "claude ", "fast:opus", "nobody:opus"])
def test_what_nobody_serves_is_not_found(tmp_path: Path, reference: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        registry(tmp_path).resolve(reference)
    assert caught.value.message == f"nobody serves the model {reference!r}"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("reference", "nearest"),
    [
        ("ecco", "echo"),
        ("cloude", "claude"),
        ("sonet", "claude:sonnet"),
        ("claud:opus", "claude:opus"),
        ("second-opus", "second:opus"),
        ("only-her", "second:only-here"),
        ("reqest", "echo:request"),
        ("parot", "parrot"),
    ],
)
def test_the_nearest_names_are_named_and_each_of_them_is_served(tmp_path: Path, reference: str, nearest: str) -> None:
    names = registry(tmp_path)
    with pytest.raises(ModelNotFoundError) as caught:
        names.resolve(reference)
    assert caught.value.hint
    suggested = caught.value.hint.removeprefix("did you mean ").removesuffix("?").split(", ")
    assert nearest in suggested
    for name in suggested:
        names.resolve(name)


def test_where_nothing_is_near_every_name_is_named(tmp_path: Path) -> None:
    names = registry(tmp_path)
    with pytest.raises(ModelNotFoundError) as caught:
        names.resolve("0000000000")
    assert caught.value.hint
    listed = caught.value.hint.removeprefix("there are ").split(", ")
    assert {"fast", "echo", "claude", "claude:opus", "second:opus", "other-echo:request"} <= set(listed)


@pytest.mark.parametrize(
    ("default", "runner", "model"),
    [("second", "second", ""), ("second:opus", "second", "opus"), ("fast", "claude", "haiku")],
)
def test_the_default_answers_when_no_model_is_named(tmp_path: Path, default: str, runner: str, model: str) -> None:
    route = registry(tmp_path, f"default: {default!r}\n" + CONFIG).resolve(None)
    assert (route.runner.name, route.model) == (runner, model)


def test_an_echo_is_no_default_even_where_there_is_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no runner may be a default"):
        registry(tmp_path, "runners: {echo: {kind: echo}}\n").resolve(None)


AGENTS = """\
aliases: {hands: "agent:big"}
runners:
  agent: {kind: acp, agent: true, binary: agent, model: big, models: [big, shared]}
  declared: {kind: jsonlines, agent: true, binary: cli, lines: {text: text}}
  repl: {kind: terminal, agent: true, binary: repl, prompt: "> "}
"""


def test_an_agent_is_no_default_even_where_there_is_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="names no model, and no runner may be a default"):
        registry(tmp_path, AGENTS).resolve(None)
    names = registry(tmp_path, AGENTS + "  claude: {kind: claude, models: [shared]}\n")
    assert [runner.name for runner in names.eligible] == ["claude"]
    for reference in (None, "shared"):
        assert names.resolve(reference).runner.name == "claude"


@pytest.mark.parametrize("model", ["big", "default"])
def test_an_agent_is_not_found_by_the_name_of_a_model(tmp_path: Path, model: str) -> None:
    names = registry(tmp_path, AGENTS)
    assert any(runner.offers(model) for runner in names.runners.values())
    with pytest.raises(ModelNotFoundError, match=f"nobody serves the model '{model}'"):
        names.resolve(model)


@pytest.mark.parametrize(
    ("reference", "runner", "model"),
    [("agent", "agent", ""), ("agent:big", "agent", "big"), ("hands", "agent", "big"), ("repl", "repl", "")],
)
def test_an_agent_answers_who_asks_for_it(tmp_path: Path, reference: str, runner: str, model: str) -> None:
    for names in (registry(tmp_path, AGENTS), registry(tmp_path, f"default: {reference}\n{AGENTS}")):
        assert names.resolve(reference).runner.name == runner
    assert (names.resolve(None).runner.name, names.resolve(None).model) == (runner, model)


def test_an_agent_may_be_one_of_an_alloy_and_is_nobodys_fallback(tmp_path: Path) -> None:
    names = registry(tmp_path, f"alloy: [agent, hands, repl]\ndefault: alloy\n{AGENTS}")
    assert [names.resolve(None).runner.name for _ in range(3)] == ["agent", "agent", "repl"]
    assert names.fallbacks(names.resolve("declared")) == []


def test_a_file_without_runners_serves_nothing(tmp_path: Path) -> None:
    for reference in (None, "echo"):
        with pytest.raises(ModelNotFoundError):
            registry(tmp_path, "runners: {}\n").resolve(reference)


def test_a_runner_is_found_by_its_own_name_only(tmp_path: Path) -> None:
    names = registry(tmp_path)
    assert names.runner("second").name == "second"
    for name in ("fast", "opus", "claude:opus", ""):
        with pytest.raises(ModelNotFoundError, match="there is no runner") as caught:
            names.runner(name)
        assert caught.value.hint == "there are echo, claude, second, other-echo"


def test_each_runner_has_a_state_directory_of_its_own(tmp_path: Path) -> None:
    runners = registry(tmp_path).runners
    assert len({runner.state_dir for runner in runners.values()}) == len(runners)
