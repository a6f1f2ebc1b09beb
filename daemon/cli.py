"""The `runnerd` command.

Every answering command is one call on the socket and imports nothing heavy; `serve` and `config` load the daemon.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from daemon import __version__
from daemon.cli_service import service
from daemon.client import Client
from daemon.errors import EXIT_NO, DaemonError
from daemon.output import (
    config_errors,
    print_answer,
    print_json,
    print_recordings,
    print_table,
    reported,
    served,
    warn,
)
from daemon.paths import log_path, socket_path
from daemon.unix_socket import lock_path

_EXITS = """\b
Exit codes: 0 yes; 1 the answer is no, or the chat failed; 2 wrong usage;
69 no daemon; 75 try again later; 78 the configuration is wrong; 130 Ctrl-C."""
_ANSWERS_WITHIN_S = 30.0
_LOGINS = {True: "yes", False: "no", None: "-"}

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(epilog=_EXITS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="runnerd")
def main() -> None:
    """One local daemon through which editors and scripts talk to the AI CLIs you are logged into."""


main.add_command(service)


def _answering(command: Command) -> Command:
    """The options of every command that asks the daemon."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    path = click.option("--socket", type=click.Path(path_type=Path), help="The daemon's socket.")
    return as_json(path(command))


@main.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The runners.yaml to use.")
@click.option("--socket", type=click.Path(path_type=Path), help="Where to listen.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--autostarted", is_flag=True, hidden=True, help="As `chat` starts it: in the background.")
@click.option("--idle-exit-s", type=float, default=3600, hidden=True, help="How long without use it stays then.")
@click.option("--ready-fd", type=int, hidden=True, help="Write a line there when ready.")
@click.option("--is-clean", is_flag=True, hidden=True, help="The environment has been cleaned.")
def serve(
    config_path: Path | None,
    socket: Path | None,
    log_level: str,
    idle_exit_s: float,
    ready_fd: int | None,
    *,
    autostarted: bool,
    is_clean: bool,
) -> None:
    """Run the daemon in the foreground. SIGTERM ends it when running chats have; a second one at once."""
    config = _config(config_path)
    with reported():
        from daemon import clean_start

        if not is_clean and (autostarted or clean_start.is_marked()):
            clean_start.execute_again(config, "--is-clean")
        from daemon import app, autostart, logs

        if not autostarted:
            autostart.make_room(app.serves_at(config, socket))
        logs.configure(log_level, log_path() if autostarted else None)
        app.serve(config, app.Launch(config_path, socket, idle_exit_s if autostarted else None, ready_fd))


@main.command()
@click.argument("prompt", required=False)
@click.option("-m", "--model", help="A runner, runner:model, or an alias. Without it the default runner answers.")
@click.option("-s", "--system", help="The system prompt.")
@click.option("--no-start", is_flag=True, help="Do not start a daemon when none runs.")
@_answering
def chat(
    prompt: str | None, model: str | None, system: str | None, socket: Path | None, *, no_start: bool, as_json: bool
) -> None:
    """Ask a model; the answer streams to stdout. Without PROMPT it is read from stdin.

    A PROMPT that begins with a dash goes behind `--`. With --json the whole answer comes as one object. A daemon that
    is started for it ends after an hour without use.
    """
    messages = [{"role": "system", "content": system}] if system else []
    with reported(as_json=as_json):
        messages.append({"role": "user", "content": _read_prompt() if prompt is None else prompt})
    request = {"model": model, "messages": messages}
    from daemon.autostart import answered

    def ask(client: Client) -> Iterator[dict[str, Any]]:
        return iter([client.call("chat", **request, stream=False)]) if as_json else client.chat(request)

    with reported(as_json=as_json):
        answer = answered(socket or socket_path(), ask, start=not no_start, warn=warn)
        if as_json:
            print_json(next(answer))
        else:
            print_answer(answer)


@main.command()
@click.option("-m", "--model", help="Who answers in new sessions. Without it the default runner does.")
@click.option("--socket", type=click.Path(path_type=Path), help="The daemon's socket.")
@click.option("--no-start", is_flag=True, help="Do not start a daemon when none runs.")
def acp(model: str | None, socket: Path | None, *, no_start: bool) -> None:
    """Serve an editor that speaks the Agent Client Protocol, on stdin and stdout. The editor starts this.

    A daemon that is started for it ends after an hour without use.
    """
    with reported():
        from daemon.acp import serve

        serve(socket or socket_path(), model=model, start=not no_start)


@main.command()
@click.argument("runner", required=False)
@click.option("--deep", is_flag=True, help="Ask each model for a real answer. That may cost money.")
@_answering
def health(runner: str | None, socket: Path | None, *, deep: bool, as_json: bool) -> None:
    """Say whether RUNNER, or any runner, can answer, and what mends one that cannot."""
    limit_s = None if deep else _ANSWERS_WITHIN_S  # a model answers when it does
    answer = _ask(socket, "health", as_json=as_json, limit_s=limit_s, runner=runner, deep=deep)
    if not as_json:
        columns = ("name", "state", "version", "detail", "hint", "age_s")
        print_table(columns, answer["runners"])
    sys.exit(0 if answer["ok"] else EXIT_NO)


@main.command()
@_answering
def models(socket: Path | None, *, as_json: bool) -> None:
    """List the models, by the names to use with -m."""
    answer = _ask(socket, "models", as_json=as_json)
    if not as_json:
        print_table(("id", "context_window", "max_output_tokens"), answer["models"])


@main.command()
@_answering
def runners(socket: Path | None, *, as_json: bool) -> None:
    """List the runners and what each can do."""
    answer = _ask(socket, "runners", as_json=as_json)
    if not as_json:
        rows = [row | {"can": _abilities(row["capabilities"])} for row in answer["runners"]]
        print_table(("name", "kind", "state", "default_model", "can"), rows)


@main.command()
@_answering
def status(socket: Path | None, *, as_json: bool) -> None:
    """Show the daemon, what runs in it and the CLI processes it keeps."""
    answer = _ask(socket, "status", as_json=as_json)
    if not as_json:
        memory = (
            f"{answer['memory_bytes'] / 1e6:.0f} MB with its CLIs (at most {answer['max_cli_memory_bytes'] / 1e6:.0f})"
        )
        click.echo(f"runnerd {answer['version']}, pid {answer['pid']}, up {answer['uptime_s']:.0f} s, {memory}\n")
        rows = [row | {"served": served(row["served"])} for row in answer["runners"]]
        print_table(("name", "state", "running", "queued", "served"), rows)
        workers = [{"runner": row["name"]} | worker for row in answer["runners"] for worker in row["workers"]]
        if workers:
            click.echo()
            print_table(("runner", "state", "model", "pid", "age_s", "turns", "memory_bytes"), workers)


@main.command()
@_answering
def reload(socket: Path | None, *, as_json: bool) -> None:
    """Read runners.yaml again. Chats that run end as they began; a file that is wrong changes nothing."""
    answer = _ask(socket, "reload", as_json=as_json)
    if not as_json:
        changes = [f"{what} {', '.join(answer[what])}" for what in ("added", "changed", "removed") if answer[what]]
        click.echo(f"{answer['config']}: {'; '.join(changes) or 'no runner has changed'}")
        for key in answer["needs_restart"]:
            click.echo(f"{key} has changed, and takes a restart (runnerd stop)", err=True)


@main.command()
@_answering
def stop(socket: Path | None, *, as_json: bool) -> None:
    """End the daemon, once running chats have ended or were cut after `drain_s`, and wait for that."""
    path = socket or socket_path()
    _ask(path, "shutdown", as_json=as_json)
    Client.wait_for_end(lock_path(path))


@main.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The runners.yaml to use.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--record", "is_recording", is_flag=True, help="Record what the CLIs tell, and what of it has drifted.")
@click.argument("kinds", nargs=-1)
def doctor(config_path: Path | None, kinds: tuple[str, ...], *, as_json: bool, is_recording: bool) -> None:
    """Look for every known CLI: where it is, which version, whether it is logged in, and what to do.

    Asks the CLIs and no model, and needs no daemon. With --record the installed CLIs of these KINDS (else of all) are
    run against stand-ins for their models' APIs on 127.0.0.1, and what they tell is compared with what runnerd knows.
    """
    if kinds and not is_recording:
        raise click.UsageError("KINDS are for --record")
    loaded = _config(config_path)
    from daemon import logs
    from daemon.paths import private_directory, state_directory

    logs.configure("error")
    if is_recording:
        _record(loaded, kinds, private_directory(state_directory()), as_json=as_json)
    from daemon.doctor import examine

    with reported(as_json=as_json):
        rows = examine(loaded, private_directory(state_directory()))
    try:
        with Client(socket_path()) as client:
            daemon = client.call_within(_ANSWERS_WITHIN_S, "version")
    except DaemonError:
        daemon = None
    http = loaded.daemon.http
    token = str(http.token_place) if http.tcp else None
    wanted = [str(place) for place in (http.socket_beside(socket_path()), http.tcp and f"http://{http.tcp}") if place]
    doors = daemon.get("http", []) if daemon else wanted
    if as_json:
        told = {"config": str(loaded.path), "socket": str(socket_path()), "http": doors, "token_file": token}
        print_json(told | {"daemon": daemon, "runners": rows})
    else:
        click.echo(f"configuration  {loaded.path}")
        runs = f"{daemon['version']} runs, pid {daemon['pid']}" if daemon else "does not run: runnerd serve"
        click.echo(f"daemon         {runs}\nsocket         {socket_path()}")
        click.echo(f"http           {', '.join(doors) or 'none'}{f' (token: {token})' if token else ''}")
        if doors != wanted:
            click.echo(f"               {', '.join(wanted) or 'none'} when it starts again (runnerd stop)")
        click.echo()
        shown = [row | {"login": _LOGINS[row["authenticated"]]} for row in rows]
        print_table(("name", "state", "version", "login", "binary", "detail", "hint"), shown)
    sys.exit(0 if any(row["ok"] and row["is_configured"] and not row["by_name_only"] for row in rows) else EXIT_NO)


def _record(loaded: Any, kinds: tuple[str, ...], state_dir: Path, *, as_json: bool) -> NoReturn:
    from daemon.doctor import record
    from runners.kinds import known_kinds

    if unknown := set(kinds).difference(known_kinds()):
        raise click.UsageError(f"unknown kind {min(unknown)!r}; known are {', '.join(known_kinds())}")
    with reported(as_json=as_json):
        rows = record(loaded, state_dir, list(dict.fromkeys(kinds)) or known_kinds())
    if as_json:
        print_json({"runners": rows})
    else:
        print_recordings(rows)
    sys.exit(EXIT_NO if any(row["drift"] or row["failed"] for row in rows) else 0)


@main.group()
def config() -> None:
    """Look at the configuration. No daemon is needed."""


@config.command("check")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The runners.yaml to check.")
def config_check(config_path: Path | None) -> None:
    """Say whether runners.yaml is right, and where it is not."""
    loaded = _config(config_path)
    click.echo(f"{loaded.path}: right; its runners: {', '.join(loaded.runners)}")


@config.command("show")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The runners.yaml to use.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def config_show(config_path: Path | None, *, as_json: bool) -> None:
    """Print the whole configuration, with what it leaves out, and without the values of `env`."""
    shown = _config(config_path).shown()
    if as_json:
        print_json(shown)
    else:
        import yaml

        # As a comment: what follows is a runners.yaml itself.
        click.echo(f"# {shown.pop('path')}")
        click.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)


@config.command("path")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The runners.yaml to use.")
def config_path_command(config_path: Path | None) -> None:
    """Print which runners.yaml is in force."""
    from daemon.config import find_config

    with config_errors():
        click.echo(find_config(config_path))


def _config(path: Path | None) -> Any:
    from daemon.config import find_config, load_config

    with config_errors():
        return load_config(find_config(path))


def _ask(
    socket: Path | None, method: str, *, as_json: bool, limit_s: float | None = _ANSWERS_WITHIN_S, **params: Any
) -> Any:
    with reported(as_json=as_json), Client(socket or socket_path()) as client:
        answer = client.call_within(limit_s, method, **params)
    if as_json:
        print_json(answer)
    return answer


def _read_prompt() -> str:
    # Closed when the shell says `<&-`.
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, or pipe one in")
    return sys.stdin.buffer.read().decode(errors="surrogateescape")


def _abilities(capabilities: dict[str, Any]) -> str:
    return ", ".join(name.replace("_", " ") for name, value in capabilities.items() if value is True)
