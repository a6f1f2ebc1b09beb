"""What a command shows to a person or a program: answers, tables, JSON, errors. Imports nothing heavy."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from daemon.errors import (
    EXIT_CONFIG,
    EXIT_INTERRUPTED,
    EXIT_NO,
    EXIT_NO_DAEMON,
    EXIT_TRY_LATER,
    CallError,
    DaemonError,
    NoDaemonError,
    WrongConfigError,
)

_STYLES: dict[Any, str] = {"ready": "green", "degraded": "yellow", "unavailable": "red"}
_STYLES |= {"as recorded": "green", "drifted": "yellow", "failed": "red"}


@contextmanager
def config_errors() -> Iterator[None]:
    """A wrong configuration as its own message on stderr, and an exit code."""
    from runners.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        click.echo(error.message, err=True)
        sys.exit(EXIT_CONFIG)


@contextmanager
def reported(*, as_json: bool = False) -> Iterator[None]:
    """Failures as one message on stderr (with `as_json` as an object on stdout) and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Our reader has seen enough. Nothing more can be written, so stdout must not be flushed at exit.
        sys.stdout = None
        sys.exit(EXIT_NO)
    except OSError as error:
        click.echo(f"runnerd: {error.strerror or error}", err=True)
        sys.exit(EXIT_NO)
    except DaemonError as error:
        data = error.data if isinstance(error, CallError) else {}
        if as_json:
            print_json({"error": {"message": str(error)} | data})
        elif isinstance(error, WrongConfigError):
            click.echo(error, err=True)
        else:
            click.echo(f"runnerd: {error}" + (f" ({data['hint']})" if data.get("hint") else ""), err=True)
            if data.get("stderr_tail"):
                click.echo(f"the CLI's last words:\n{data['stderr_tail']}", err=True)
        if isinstance(error, NoDaemonError):
            sys.exit(EXIT_NO_DAEMON)
        if isinstance(error, WrongConfigError) or data.get("kind") == "config":
            sys.exit(EXIT_CONFIG)
        sys.exit(EXIT_TRY_LATER if data.get("retryable") else EXIT_NO)


def print_answer(chunks: Iterator[dict[str, Any]]) -> None:
    """Text to stdout as it comes; what else a person should know to stderr."""
    last = "\n"
    for chunk in chunks:
        match chunk["type"]:
            case "text":
                # A lone surrogate has no UTF-8 form.
                sys.stdout.buffer.write(chunk["chunk"].encode(errors="replace"))
                sys.stdout.buffer.flush()
                last = chunk["chunk"][-1:] or last
            case "warning":
                warn(chunk["message"])
            case "retrying":
                when = "" if chunk["delay_s"] is None else f" in {chunk['delay_s']} s"
                warn(f"{chunk['error']}, trying again{when}")
            case "done" if chunk["stop_reason"] != "end_turn":
                click.secho(f"\nrunnerd: the answer ended with {chunk['stop_reason']}", err=True, fg="yellow")
    if last != "\n" and sys.stdout.isatty():
        click.echo()


def warn(message: str) -> None:
    """What a person should know, on stderr."""
    click.secho(f"runnerd: {message}", err=True, fg="yellow")


def print_json(value: Any) -> None:
    """An answer for programs."""
    click.echo(json.dumps(value, indent=2))


def print_table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """An answer for people: `columns` are keys of the rows, whose endings say how they are written."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Behind a pipe nothing is cut: a line is as long as it must be.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.removesuffix("_s").removesuffix("_bytes").replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(column, row[column]), style=_STYLES.get(row[column], "")) for column in columns))
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        click.echo(line.rstrip())


def print_recordings(rows: list[dict[str, Any]]) -> None:
    """What `doctor --record` found: a line for each CLI, then one for each difference and each failure."""
    click.echo("Each CLI was run against a stand-in for its model's API on 127.0.0.1; no model was asked.\n")
    print_table(("kind", "state", "version", "recorded", "binary", "detail"), rows)
    for row in rows:
        who = {"kind": row["kind"], "version": row["version"]}
        if row["failed"]:
            click.echo()
            print_table(("kind", "version", "failed", "why"), [who | _pair(*one) for one in row["failed"].items()])
        if row["drift"]:
            click.echo()
            differences = [who | {"is": one["what"]} | one for one in row["drift"]]
            print_table(("kind", "version", "is", "event", "path", "recorded", "seen"), differences)


def _pair(failed: str, why: str) -> dict[str, str]:
    return {"failed": failed, "why": why}


def served(ways: dict[str, Any]) -> str:
    """How many chats were served in which way, and the mean time until they had a session."""
    told = [f"{way['chats']} {name} ({1000 * way['session_s']:.0f} ms)" for name, way in ways.items()]
    return ", ".join(told) or "-"


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column.endswith("_s"):
        return f"{value:.0f} s"
    return f"{value / 1e6:.0f} MB" if column.endswith("_bytes") else str(value)
