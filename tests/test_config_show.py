"""`runnerd config show`: the whole configuration, without secrets, in a form that is a configuration again."""

import json
from typing import Any

import yaml

from daemon.config import load_config
from tests.world import World

SECRET = "a-very-secret-value"
TEXT = f"""\
default: mixed
aliases: {{quick: "ol:small", mixed: alloy}}
alloy: [c, "cop:gpt-x"]
fallback: [ol]
daemon: {{drain_s: 5, socket: /somewhere/else.sock}}
runners:
  c: {{kind: claude, env: {{ANTHROPIC_API_KEY: {SECRET}, EMPTY: ""}}, env_pass: [A_NAME], timeouts: {{turn_s: 60}}}}
  ol: {{kind: ollama, host: "127.0.0.1:1", keep_alive: 5m, num_ctx: 4096}}
  cop:
    kind: copilot
    model: gpt-x
    private_home: true
    provider: {{base_url: "http://127.0.0.1:1/v1", api_key_env: KEY, max_prompt_tokens: 1000}}
    env: {{KEY: {SECRET}}}
  e: {{kind: echo, retry: {{attempts: 1}}, breaker: {{failures: 2}}, max_running: 1, max_queued: 0}}
"""


def shown(world: World, text: str = TEXT) -> Any:
    done = world.runnerd("config", "show", "--config", str(world.config(text)), "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


def test_every_key_of_the_file_is_shown_with_its_value_those_of_a_kind_too(world: World) -> None:
    whole = shown(world)
    assert whole["path"] == str(world.root / "runners.yaml")
    given = yaml.safe_load(TEXT)

    def contains(whole: Any, part: Any) -> bool:
        if isinstance(part, dict):
            return all(name in whole and contains(whole[name], value) for name, value in part.items())
        return bool(whole == part)

    for entry in (*given["runners"].values(),):
        entry["env"] = dict.fromkeys(entry.get("env", {}), "(hidden)")
    assert contains(whole, given)
    assert list(whole["runners"]) == ["c", "ol", "cop", "e"]


def test_what_the_file_leaves_out_is_shown_as_it_holds(world: World) -> None:
    whole = shown(world)
    assert whole["runners"]["c"]["timeouts"] == {"spawn_s": 30, "first_chunk_s": 180, "silence_s": 180, "turn_s": 60}
    assert whole["runners"]["ol"]["timeouts"]["spawn_s"] == 120
    assert whole["runners"]["c"]["retry"]["attempts"] == 3
    assert whole["daemon"]["parse_cap_bytes"] == 64 * 1024 * 1024


def test_no_value_of_env_is_shown_in_either_form(world: World) -> None:
    config = world.config(TEXT)
    for options in ([], ["--json"]):
        done = world.runnerd("config", "show", "--config", str(config), *options)
        assert done.returncode == 0
        assert SECRET.encode() not in done.stdout + done.stderr
        assert done.stdout.count(b"(hidden)") == 3
        assert b"ANTHROPIC_API_KEY" in done.stdout


def test_what_is_shown_is_a_configuration_that_means_the_same(world: World) -> None:
    config = world.config(TEXT)
    done = world.runnerd("config", "show", "--config", str(config))
    assert done.stdout.startswith(f"# {config}\n".encode())
    again = world.root / "again.yaml"
    again.write_bytes(done.stdout.replace(b"(hidden)", SECRET.encode()))
    checked = world.runnerd("config", "check", "--config", str(again))
    assert (checked.returncode, checked.stderr) == (0, b"")
    first, second = load_config(config), load_config(again)
    first.runners["c"].env["EMPTY"] = SECRET
    assert first.model_copy(update={"path": again}) == second


def test_the_built_in_configuration_is_shown_too_and_is_right(world: World) -> None:
    done = world.runnerd("config", "show")
    again = world.root / "again.yaml"
    again.write_bytes(done.stdout)
    assert world.runnerd("config", "check", "--config", str(again)).returncode == 0


def test_a_wrong_file_is_not_shown(world: World) -> None:
    done = world.runnerd("config", "show", "--config", str(world.config("runners: {a: {kind: nonsense}}\n")))
    assert (done.returncode, done.stdout) == (78, b"")
