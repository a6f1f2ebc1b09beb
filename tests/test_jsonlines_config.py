"""A broken declaration of a CLI is refused when runners.yaml is read, with the key's path and its line."""

import re

import pytest

from daemon.config import load_config
from runners.errors import ConfigError
from runners.providers.jsonlines.failures import failure
from runners.providers.jsonlines.settings import ByKind, JsonLinesSettings
from tests.world import World

WELL = """\
runners:
  cli:
    kind: jsonlines
    agent: true
    binary: cli
    model: small
    args: [--json, "--model={model}",
           "{{x}}"]
    lines:
      text: type == 'text' && text
      usage:
        at: usage
        input_tokens: sum([in, cached])
      error:
        message: error.message
        words:
          rate_limited: [slow down]
      end: type == 'end'
    exit_codes:
      rate_limited: [7]
    login:
      args: [login]
"""
MISTAKES = [
    ("    agent: true\n", "", 2, "runners.cli.agent: must be true"),
    ("agent: true", "agent: false", 4, "runners.cli.agent: must be true"),
    ("    binary: cli\n", "", 2, "runners.cli.binary: Field required"),
    ("    model: small\n", "", 2, "runners.cli: `args` take a {model}"),
    ('"{{x}}"', '"{sistem}"', 8, "runners.cli.args[2]: '{sistem}': the placeholders are {model}, {system}, "),
    ('"{{x}}"', '"{model!r}"', 8, "runners.cli.args[2]: '{model!r}': the placeholders are"),
    ('"{{x}}"', '"{}"', 8, "runners.cli.args[2]: '{}': the placeholders are"),
    ('"{{x}}"', '"{x"', 8, "runners.cli.args[2]: '{x': expected '}'"),
    ('"{{x}}"', '--effort, "{effort}"', 7, "runners.cli.args: `--effort` would take the next argument in the place of"),
    ('"{{x}}"', "7", 8, "runners.cli.args[2]: Input should be a valid string"),
    ("      text: type == 'text' && text\n", "", 9, "runners.cli.lines: needs `text`, `whole_text` or both"),
    ("text: type == 'text' && text", "text: a.", 10, "runners.cli.lines.text: 'a.' is no JMESPath expression: Exp"),
    ("text: type == 'text' && text", "text: '[?'", 10, "runners.cli.lines.text: '[?' is no JMESPath expression: Inv"),
    ("text: type == 'text' && text", "text: ''", 10, "runners.cli.lines.text: '' is no JMESPath expression: Inv"),
    (
        "text: type == 'text' && text",
        "text: 'a[::0]'",
        10,
        "runners.cli.lines.text: 'a[::0]': a slice with a step of 0",
    ),
    ("text: type == 'text' && text", "text: []", 10, "runners.cli.lines.text: Input should be a valid string"),
    ("text: type == 'text' && text", "txt: text", 10, "runners.cli.lines.txt: unknown key; did you mean text?"),
    (
        "at: usage",
        "at: a && sums(b)",
        12,
        "runners.cli.lines.usage.at: 'a && sums(b)': JMESPath has no function sums()",
    ),
    ("sum([in, cached])", "sum(in, cached)", 13, "sum() takes 1 arguments, and not 2"),
    ("input_tokens", "tokens", 13, "runners.cli.lines.usage.tokens: unknown key"),
    ("        message: error.message\n", "", 14, "runners.cli.lines.error.message: Field required"),
    (
        "rate_limited: [slow down]",
        "rate_limit: [slow]",
        17,
        "runners.cli.lines.error.words.rate_limit: unknown key; did",
    ),
    ("[slow down]", '["", slow]', 17, "runners.cli.lines.error.words.rate_limited[0]: String should have at least 1"),
    ("rate_limited: [7]", "busy: [7]", 20, "runners.cli.exit_codes.busy: unknown key"),
    (
        "rate_limited: [7]",
        "rate_limited: [x]",
        20,
        "runners.cli.exit_codes.rate_limited[0]: Input should be a valid int",
    ),
    ("rate_limited: [7]", "network: [0]", 19, "runners.cli.exit_codes: 0 stands here twice"),
    ("args: [login]", "args: []", 22, "runners.cli.login.args: List should have at least 1 item"),
    (
        "    model: small\n",
        "    model: small\n    temperature: 1\n",
        7,
        "runners.cli.temperature: a CLI of this kind is not",
    ),
    (
        "binary: cli",
        "binary: cli\n    system_prompt: inline",
        6,
        "runners.cli.system_prompt: Input should be 'replace'",
    ),
]


@pytest.mark.parametrize(("good", "bad", "line", "message"), MISTAKES, ids=[message for *_, message in MISTAKES])
def test_a_broken_declaration_is_refused_with_its_key_and_line(
    world: World, good: str, bad: str, line: int, message: str
) -> None:
    assert WELL.count(good) == 1
    path = world.config(WELL.replace(good, bad))
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_config(path)
    [mistake] = str(caught.value).splitlines()
    assert mistake.startswith(f"{path}:{line}: ")


def test_every_mistake_is_told_and_a_daemon_does_not_start(world: World) -> None:
    broken = WELL.replace("at: usage", "at: a.").replace('"{{x}}"', '"{x}"')
    done = world.runnerd("serve", "--config", str(world.config(broken)))
    assert done.returncode == 78
    told = done.stderr.decode()
    assert "runners.yaml:8: runners.cli.args[2]: " in told
    assert "runners.yaml:12: runners.cli.lines.usage.at: " in told


def test_a_declaration_that_can_work_is_taken(world: World) -> None:
    assert load_config(world.config(WELL)).runners["cli"].is_agent


def test_every_kind_of_error_that_an_entry_may_name_has_its_class(world: World) -> None:
    settings = load_config(world.config(WELL)).runners["cli"]
    assert isinstance(settings, JsonLinesSettings)
    for kind in ByKind.model_fields:
        assert failure(kind, "why", settings).kind == kind
