"""runners.yaml: which one is in force, and how its mistakes are told."""

import os
import shutil
from pathlib import Path

import pytest

from daemon.config import load_config
from runners.errors import ConfigError
from runners.kinds import known_kinds
from tests.world import World

GOOD = "runners: {echo: {kind: echo}}\n"


def put(path: Path, text: str = GOOD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def in_force(world: World, *arguments: str) -> Path:
    """What `runnerd config path` prints, in a directory that has a runners.yaml of its own."""
    here = put(world.root / "checkout" / "runners.yaml", "this is: [not ours").parent
    put(here / "config" / "runnerd" / "runners.yaml", "this is: [not ours")
    done = world.runnerd("config", "path", *arguments, cwd=here)
    assert (done.returncode, done.stderr) == (0, b"")
    return Path(done.stdout.decode().removesuffix("\n"))


def test_the_built_in_file_is_in_force_when_there_is_no_other(world: World) -> None:
    path = in_force(world)
    assert path.is_absolute()
    assert path.name == "runners.yaml"
    assert "What runnerd serves when you have no configuration of your own" in path.read_text()
    assert world.runnerd("config", "check").returncode == 0


def test_the_user_s_own_file_comes_before_the_built_in_one(world: World) -> None:
    mine = put(world.home / ".config" / "runnerd" / "runners.yaml")
    assert in_force(world) == mine


def test_xdg_config_home_says_where_the_user_s_own_file_is(world: World) -> None:
    put(world.home / ".config" / "runnerd" / "runners.yaml")
    mine = put(world.root / "xdg" / "runnerd" / "runners.yaml")
    world.env["XDG_CONFIG_HOME"] = str(world.root / "xdg")
    assert in_force(world) == mine


@pytest.mark.parametrize("relative", ["config", ".", ""])
def test_a_relative_xdg_config_home_does_not_lead_into_the_current_directory(world: World, relative: str) -> None:
    world.env["XDG_CONFIG_HOME"] = relative
    mine = put(world.home / ".config" / "runnerd" / "runners.yaml")
    assert in_force(world) == mine


def test_runnerd_config_comes_before_the_user_s_own_file(world: World) -> None:
    put(world.home / ".config" / "runnerd" / "runners.yaml")
    named = put(world.root / "named.yaml")
    world.env["RUNNERD_CONFIG"] = str(named)
    assert in_force(world) == named


def test_the_option_comes_before_everything(world: World) -> None:
    world.env["RUNNERD_CONFIG"] = str(put(world.root / "named.yaml"))
    option = put(world.root / "option.yaml")
    assert in_force(world, "--config", str(option)) == option


def test_a_named_file_that_is_not_there_is_a_mistake_and_not_passed_over(world: World) -> None:
    put(world.home / ".config" / "runnerd" / "runners.yaml")
    world.env["RUNNERD_CONFIG"] = "/no/such/file"
    done = world.runnerd("config", "check")
    assert (done.returncode, done.stderr) == (78, b"/no/such/file: no such file\n")


def test_the_daemon_never_takes_its_configuration_from_the_current_directory(world: World) -> None:
    here = put(world.root / "checkout" / "runners.yaml", "this is: [not ours").parent
    done = world.runnerd("config", "check", cwd=here)
    assert (done.returncode, done.stderr) == (0, b"")


def mistakes(tmp_path: Path, text: str) -> list[str]:
    """The lines of the error that a file gives, without the path that each begins with."""
    path = put(tmp_path / "runners.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = caught.value.message.splitlines()
    assert all(line.startswith(f"{path}:") for line in lines), lines
    return [line.removeprefix(f"{path}:") for line in lines]


ECHO = "runners:\n  echo:\n    kind: echo\n"

MISTAKES = {
    "an unknown key of the file": (ECHO + "colour: blue\n", "4: colour: unknown key; known are "),
    "a mistyped key of the file": ("defualt: x\n" + ECHO, "1: defualt: unknown key; did you mean default?"),
    "a mistyped key of the daemon": (
        ECHO + "daemon:\n  drain: 1\n",
        "5: daemon.drain: unknown key; did you mean drain_s?",
    ),
    "a mistyped key of an entry": (ECHO + "    modle: x\n", "4: runners.echo.modle: unknown key; did you mean model?"),
    "a mistyped timeout": (
        ECHO + "    timeouts:\n      spwan_s: 1\n",
        "5: runners.echo.timeouts.spwan_s: unknown key; did you mean spawn_s?",
    ),
    "a mistyped key of a part that may be left out": (
        "runners:\n  x:\n    kind: copilot\n    model: m\n    provider:\n      base_url: http://x\n      api_key: y\n",
        "7: runners.x.provider.api_key: unknown key; did you mean api_key_env?",
    ),
    "a provider without its model": (
        "runners:\n  x:\n    kind: copilot\n    provider: {base_url: http://x}\n",
        "2: runners.x: with a provider of your own, `model` must say which of its models is meant",
    ),
    "an address that is none": (
        "runners:\n  x:\n    kind: ollama\n    host: ftp://x\n",
        "4: runners.x.host: 'ftp://x' is no address of an Ollama server",
    ),
    "a duration that is none": (
        "runners:\n  x:\n    kind: ollama\n    keep_alive: yes please\n",
        "4: runners.x.keep_alive: 'yes please' is neither a number of seconds nor a duration such as `5m`",
    ),
    "what a kind does not take": (
        "runners:\n  x:\n    kind: copilot\n    temperature: 0.5\n",
        "2: runners.x: copilot takes no temperature",
    ),
    "a mistyped kind": (
        "runners:\n  x:\n    kind: ecco\n",
        f"3: runners.x.kind: unknown kind 'ecco'; known are {', '.join(known_kinds())}",
    ),
    "no kind": ("runners:\n  x:\n    model: a\n", "2: runners.x: needs a kind"),
    "no entry": ("runners:\n  x:\n", "2: runners.x: needs a kind"),
    "a colon in a name": ('runners:\n  "a:b": {kind: echo}\n', "2: runners.a:b: a runner's name is letters, digits, "),
    "text for a number": (ECHO + "    timeouts: {spawn_s: soon}\n", "4: runners.echo.timeouts.spawn_s: "),
    "a number for text": (ECHO + "    model: 5\n", "4: runners.echo.model: "),
    "a number in env": (ECHO + "    env:\n      PORT: 5\n", "5: runners.echo.env.PORT: "),
    "a number in a list": (ECHO + "    args:\n    - a\n    - 5\n", "6: runners.echo.args[1]: "),
    "a timeout of nothing": (ECHO + "    timeouts: {turn_s: 0}\n", "4: runners.echo.timeouts.turn_s: "),
    "a list for a map": (ECHO + "    timeouts: []\n", "4: runners.echo.timeouts: "),
    "a negative drain": (ECHO + "daemon: {drain_s: -1}\n", "4: daemon.drain_s: "),
    "a tiny cap": (ECHO + "daemon:\n  parse_cap_bytes: 1\n", "5: daemon.parse_cap_bytes: "),
    "runners as a list": ("runners:\n- kind: echo\n", "1: runners: "),
    "runners of nothing": ("daemon: {}\nrunners:\n", "2: runners: "),
    "no runners": ("default: echo\n", "1: runners: "),
    "an alias of nobody": (ECHO + "aliases:\n  a: nobody\n", "5: aliases.a: 'nobody' names no runner of this file"),
    "an alias of an alias": (ECHO + "aliases: {a: echo, b: a}\n", "4: aliases.b: 'a' names no runner of this file"),
    "an alias that is a runner": (ECHO + "aliases:\n  echo: echo\n", "5: aliases.echo: is a runner's name too"),
    "an alias of a number": (ECHO + "aliases: {a: 5}\n", "4: aliases.a: "),
    "a default of nobody": (ECHO + "default: nobody\n", "4: default: 'nobody' names no runner of this file (echo)"),
    "a default echo": (ECHO + "default: echo\n", "4: default: echo answers only when it is asked for by name"),
    "a default echo by an alias": (
        ECHO + "aliases: {e: 'echo:request'}\ndefault: e\n",
        "5: default: echo answers only when it is asked for by name",
    ),
    "a runner twice": (ECHO + "  echo: {kind: echo}\n", "4: runners.echo: stands here twice (line 2)"),
    "a key twice": (ECHO + "    model: a\n    model: b\n", "5: runners.echo.model: stands here twice (line 4)"),
    "a part twice": (ECHO + "daemon: {}\ndaemon: {}\n", "5: daemon: stands here twice (line 4)"),
    "a name that is a number": ("runners:\n  echo: {kind: echo}\n  1: {kind: echo}\n", "3: runners.1: "),
    "not YAML": (ECHO + "daemon: {\n", "5: not YAML: "),
    "a tab": ("runners:\n\techo: {}\n", "2: not YAML: "),
    "two documents": (ECHO + "---\nrunners: {}\n", "4: not YAML: "),
    "an unknown tag": (ECHO + "    model: !secret x\n", "4: not YAML: "),
    "a Python object": (ECHO + "    model: !!python/object:os.system x\n", "4: not YAML: "),
    "a key that is a list": (ECHO + "? [a]\n: b\n", "4: "),
    "a part that contains itself": ("runners: &all\n  echo: *all\n", "2: runners.echo: "),
    "a control character": (ECHO + "    model: \x01\n", "4: not YAML: "),
    "nothing": ("", "1: runners: "),
    "a comment alone": ("# nothing\n", "1: runners: "),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_once_with_its_line_and_its_key(tmp_path: Path, text: str, expected: str) -> None:
    [told] = mistakes(tmp_path, text)
    assert told.startswith(expected)


AGENT = "runners:\n  claude: {kind: claude}\n  agent: {kind: acp, agent: true, binary: agent}\n"
BY_ITSELF = "agent is an agent, which may act by itself: it takes no other runner's place"


@pytest.mark.parametrize(
    ("above", "mistake"),
    [
        ("fallback: [claude, agent]\n", ":1: fallback[1]: "),
        ("fallback:\n- claude\n- agent:big\n", ":3: fallback[1]: "),
        ("aliases: {hands: agent}\nfallback: [hands]\n", ":2: fallback[0]: "),
    ],
)
def test_an_agent_is_refused_as_a_fallback(tmp_path: Path, above: str, mistake: str) -> None:
    path = put(tmp_path / "runners.yaml", above + AGENT)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}{mistake}{BY_ITSELF}"


def test_an_agent_may_be_named_everywhere_else(tmp_path: Path) -> None:
    above = "default: hands\naliases: {hands: agent}\nalloy: [claude, agent:big, hands]\nfallback: [claude]\n"
    config = load_config(put(tmp_path / "runners.yaml", above + AGENT))
    assert [name for name, entry in config.runners.items() if entry.is_agent] == ["agent"]


@pytest.mark.parametrize(("given", "attempts"), [("", 1), (", retry: {base_s: 1}", 1), (", retry: {attempts: 2}", 2)])
def test_an_agent_is_asked_once_unless_its_entry_says_more(tmp_path: Path, given: str, attempts: int) -> None:
    entry = f"{{kind: acp, agent: true, binary: agent{given}}}"
    config = load_config(put(tmp_path / "runners.yaml", f"runners:\n  claude: {{kind: claude}}\n  agent: {entry}\n"))
    assert [runner.retry.attempts for runner in config.runners.values()] == [3, attempts]


@pytest.mark.parametrize("given", ["", ", agent: false", ", agent: maybe"])
@pytest.mark.parametrize(
    "entry", ["kind: acp", 'kind: terminal, prompt: "> "', "kind: jsonlines, lines: {text: text}"], ids=lambda e: e[6:9]
)
def test_a_kind_that_may_act_is_refused_where_its_user_has_not_allowed_it(
    tmp_path: Path, entry: str, given: str
) -> None:
    path = put(tmp_path / "runners.yaml", f"runners:\n  x:\n    {{{entry}, binary: cli{given}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    # Where it says nothing of it, the line is that of the entry.
    why = "Input should be a valid boolean" if "maybe" in given else "must be true: what this CLI may do by itself"
    assert str(caught.value).startswith(f"{path}:{3 if given else 2}: runners.x.agent: {why}")


@pytest.mark.parametrize("text", ["- echo\n", "echo\n", "5\n"], ids=repr)
def test_a_file_that_is_no_mapping_is_told_so_in_a_person_s_words(tmp_path: Path, text: str) -> None:
    [told] = mistakes(tmp_path, text)
    assert told.startswith("1: ")
    assert "_Layout" not in told


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = """\
colour: blue
daemon:
  drain: 1
default: nobody
aliases:
  fast: nothing
runners:
  echo:
    kind: echo
    modle: x
    timeouts:
      spwan_s: 1
      turn_s: never
  other:
    kind: ecco
"""
    told = mistakes(tmp_path, text)
    assert [int(line.split(":")[0]) for line in told] == [1, 3, 4, 6, 10, 12, 13, 15]


def test_a_file_that_is_no_utf_8_cannot_be_read(world: World) -> None:
    path = world.root / "runners.yaml"
    path.write_bytes(b"runners: \xff\n")
    done = world.runnerd("config", "check", "--config", str(path))
    assert done.returncode == 78
    assert done.stderr.decode().startswith(f"{path}: cannot be read: ")


def test_a_pipe_that_nobody_writes_to_is_no_configuration_and_holds_nobody_up(world: World) -> None:
    path = world.root / "runners.yaml"
    os.mkfifo(path)
    done = world.runnerd("config", "check", "--config", str(path))
    assert (done.returncode, done.stderr.decode()) == (78, f"{path}: is no regular file\n")


@pytest.mark.parametrize("text", ["default: 2001-99-99\n", "a: " + "[" * 5000], ids=["a date that is none", "depth"])
def test_yaml_that_its_own_reader_fails_at_is_told_so(world: World, text: str) -> None:
    path = world.config(text)
    done = world.runnerd("config", "check", "--config", str(path))
    assert done.returncode == 78
    assert done.stderr.decode().startswith(f"{path}: not YAML that can be read: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_its_user_may_not_read_is_told_so(world: World) -> None:
    path = world.config(GOOD)
    path.chmod(0)
    done = world.runnerd("config", "check", "--config", str(path))
    assert done.returncode == 78
    assert done.stderr.decode().startswith(f"{path}: cannot be read: ")


def test_a_whole_file_is_read_as_it_is_meant(tmp_path: Path) -> None:
    text = """\
daemon: {socket: /run/x.sock, drain_s: 5, parse_cap_bytes: 2048}
default: smart
aliases: {smart: "claude:opus", fast: "claude:haiku"}
runners:
  second: &claude
    kind: claude
    binary: /opt/claude
    model: opus
    models: [opus, haiku]
    max_tokens: 100
    temperature: 0.5
    timeouts: {first_chunk_s: 10}
    env: {A: "1"}
    env_pass: [ANTHROPIC_API_KEY]
    args: [--x]
  claude: *claude
"""
    config = load_config(put(tmp_path / "runners.yaml", text))
    assert list(config.runners) == ["second", "claude"]
    assert (config.daemon.socket, config.daemon.drain_s) == (Path("/run/x.sock"), 5)
    assert (config.default, config.aliases["fast"]) == ("smart", "claude:haiku")
    claude = config.runners["claude"]
    assert claude == config.runners["second"]
    assert (claude.timeouts.first_chunk_s, claude.timeouts.spawn_s) == (10, 30)
    assert (claude.env, claude.env_pass, claude.args) == ({"A": "1"}, ["ANTHROPIC_API_KEY"], ["--x"])


def test_the_built_in_file_is_right_and_its_default_is_no_echo(tmp_path: Path) -> None:
    built_in = Path(__file__).parent.parent / "runners.yaml"
    config = load_config(Path(shutil.copy(built_in, tmp_path)))
    assert next(iter(config.runners)) == "claude"
    assert "echo" in config.runners
