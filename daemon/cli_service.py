"""`runnerd service`: the daemon as a service of its user. What it needs is imported when a command runs."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from daemon.errors import EXIT_NO
from daemon.output import config_errors, print_json, reported

if TYPE_CHECKING:
    from daemon.service_manager import ServiceManager

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def service() -> None:
    """Run the daemon as a service: of systemd, or of launchd on macOS. It starts at login, and again when it fails."""


def _serving(command: Command) -> Command:
    """The options that a service's own `serve` is given."""
    config = click.option("--config", "config_path", type=click.Path(path_type=Path), help="The runners.yaml to use.")
    path = click.option("--socket", type=click.Path(path_type=Path), help="Where to listen.")
    return config(path(command))


@service.command()
@_serving
def install(config_path: Path | None, socket: Path | None) -> None:
    """Write the service's file and start it; again, to take a new PATH or new options.

    It runs this very runnerd, with the PATH of now. A file that is not ours is left alone.
    """
    from daemon.service_manager import service_manager

    manager = service_manager()
    with config_errors(), reported():
        content = _content(manager, config_path, socket)
        before = manager.written()
        if content != before:
            manager.write(content)
        click.echo(f"{manager.path}: {'unchanged' if content == before else 'written'}")
        if manager.answers():
            manager.start(replaced=before not in (None, content))
            click.echo("the service runs")
        else:
            _print_by_hand("starts it", manager.by_hand)


@service.command()
def uninstall() -> None:
    """End the service, and remove its file."""
    from daemon.service_manager import service_manager

    manager = service_manager()
    with config_errors(), reported():
        if manager.written() is None:
            click.echo(f"{manager.path}: there is none")
            return
        is_answering = manager.answers()
        if is_answering:
            manager.stop()
        manager.remove()
        click.echo(f"{manager.path}: removed")
        if not is_answering:
            _print_by_hand("ends it, if it runs", manager.by_hand_end)


@service.command()
@_serving
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def status(config_path: Path | None, socket: Path | None, *, as_json: bool) -> None:
    """Say whether the service is installed and runs. Exits with 0 when both are so, else with 1.

    `current` says whether `install`, with the same options, would write the same file; with a wrong configuration
    it would write none.
    """
    from daemon.service_manager import service_manager
    from runners.errors import ConfigError

    manager = service_manager()
    with config_errors(), reported():
        written = manager.written()
        try:
            content = _content(manager, config_path, socket)
        except ConfigError:
            content = None
        answer: dict[str, Any] = {
            "path": str(manager.path),
            "installed": written is not None,
            "current": written is not None and written == content,
            "enabled": manager.enabled(),
            "active": manager.active(),
        }
    if as_json:
        print_json(answer)
    else:
        words = {True: "yes", False: "no", None: "unknown"}
        for name, value in answer.items():
            click.echo(f"{name:10} {value if isinstance(value, str) else words[value]}")
    sys.exit(0 if answer["installed"] and answer["active"] == "active" else EXIT_NO)


def _content(manager: "ServiceManager", config_path: Path | None, socket: Path | None) -> bytes:
    """What the service's file must hold. Raises ConfigError when the daemon would not take its configuration."""
    from daemon.config import find_config, load_config
    from daemon.service_unit import serve_command, service_environment

    config = load_config(find_config(config_path))
    command = serve_command(sys.executable, config_path, socket)
    return manager.content(command, service_environment(os.environ), config.daemon.drain_s)


def _print_by_hand(does: str, commands: Sequence[str]) -> None:
    click.echo(f"no service manager of yours answers here. Where one does, this {does}:")
    for command in commands:
        click.echo(f"  {command}")
