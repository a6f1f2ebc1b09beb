"""What a service manager reads: a systemd user unit, a launchd agent. Pure: looks at no machine, writes nothing."""

import math
import os
import plistlib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.errors import EXIT_CONFIG, DaemonError

HEADER = "Written by `runnerd service install`"
"""Stands in every file that is ours to replace and to remove."""

UNIT = "runnerd.service"
LABEL = "runnerd"

_WATCHDOG_S = 60
# After the chats have ended or were cut: the CLIs, each by its ladder of bounded steps.
_CLOSE_S = 30
# More than any drain lasts, and a number that both managers can count with.
_DRAIN_CAP_S = 1_000_000
# Where a service and the commands of a shell must look for the same things.
_DIRECTORIES = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
_FILES = ("RUNNERD_CONFIG", "RUNNERD_SOCKET")
# Unicode's categories of what no spelling can bring past both readers: control, half a character, no character.
_UNWRITABLE = ("Cc", "Cs", "Cn")
# systemd refuses the first three, however they are written. The path is taken as it is, and the same word as argv[0]
# has its variables replaced: no spelling of a dollar sign suits both.
_NO_PROGRAM = set("\"'\\$")

_UNIT_TEXT = """\
# {header}, which writes it anew; `runnerd service uninstall` removes it.
# Settings of your own belong beside it: systemctl --user edit {unit}
[Unit]
Description=runnerd, the daemon between editors and AI CLIs
# A daemon that cannot run, such as a second one on its socket, is given up.
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
# A service's own PATH does not find CLIs that a user has installed.
{environment}
# A daemon whose event loop is stuck is killed, and its last words are where it was stuck.
WatchdogSec={watchdog_s}
Environment=PYTHONFAULTHANDLER=1
Restart=on-failure
RestartPreventExitStatus={exit_config}
RestartSec=2
# Known since systemd 254; older ones say so in their log, and wait 2 s each time.
RestartSteps=4
RestartMaxDelaySec=60
TimeoutStopSec={stop_s}
# What a CLI starts in a session of its own and with a cleared environment is found by nothing but its control group.
# Mixed: SIGTERM goes to the daemon alone, whose chats end by themselves; once it has ended, SIGKILL to what is left.
KillMode=mixed
UMask=0077

[Install]
WantedBy=default.target
"""


def serve_command(python: str, config: Path | None, socket: Path | None) -> list[str]:
    """The command line of a service: absolute, for a service has another directory.

    `python` is not resolved: in a virtual environment the symbolic link is what makes it that environment's.
    """
    if not Path(python).is_absolute():
        raise DaemonError(f"a service needs Python's absolute path, and this one calls itself {python!r}")
    # Without -P a file beside it could take the place of a module of ours.
    command = [python, "-P", "-m", "runnerd", "serve"]
    if config is not None:
        command += ["--config", str(config.absolute())]
    if socket is not None:
        command += ["--socket", str(socket.expanduser().absolute())]
    return command


def service_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What of the installing user's environment a service needs: the absolute entries of PATH, and where things are."""
    path = [entry for entry in ours.get("PATH", os.defpath).split(os.pathsep) if Path(entry).is_absolute()]
    directories = {name: ours[name] for name in _DIRECTORIES if Path(ours.get(name, "")).is_absolute()}
    files = {name: str(Path(ours[name]).absolute()) for name in _FILES if ours.get(name)}
    return {"PATH": os.pathsep.join(path)} | directories | files


def unit_text(command: Sequence[str], environment: Mapping[str, str], drain_s: float) -> str:
    """A systemd unit. Raises DaemonError for a value that cannot stand in one."""
    program, *arguments = command
    if set(program) & _NO_PROGRAM:
        raise DaemonError(f"systemd starts nothing with a quote, a backslash or a dollar sign in its path: {program}")
    words = [_quoted(program), *(_quoted(word.replace("$", "$$")) for word in arguments)]
    return _UNIT_TEXT.format(
        header=HEADER,
        unit=UNIT,
        command=" ".join(words),
        environment="\n".join(f"Environment={_quoted(f'{name}={value}')}" for name, value in environment.items()),
        watchdog_s=_WATCHDOG_S,
        exit_config=EXIT_CONFIG,
        stop_s=_stop_s(drain_s),
    )


def agent(command: Sequence[str], environment: Mapping[str, str], drain_s: float, log: Path) -> bytes:
    """A launchd agent that logs to `log`. Raises DaemonError for a value that cannot stand in one."""
    for word in (*command, *environment.values(), str(log)):
        _refuse_unwritable(word)
    document = plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": list(command),
            "EnvironmentVariables": dict(environment),
            "RunAtLoad": True,
            # It has no start limit, and starts a daemon again whose configuration is wrong: then not too often.
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 30,
            "ExitTimeOut": _stop_s(drain_s),
            # The default is slowed down, and somebody waits for every answer.
            "ProcessType": "Interactive",
            "StandardErrorPath": str(log),
            "Umask": 0o077,
        },
        sort_keys=False,
    )
    return document.replace(b"<plist ", f"<!-- {HEADER} -->\n<plist ".encode(), 1)


def _stop_s(drain_s: float) -> int:
    return math.ceil(min(drain_s, _DRAIN_CAP_S)) + _CLOSE_S


def _quoted(word: str) -> str:
    """One word as systemd.syntax(7) quotes it, with no specifier of systemd.unit(5) in it."""
    _refuse_unwritable(word)
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _refuse_unwritable(word: str) -> None:
    if any(unicodedata.category(character) in _UNWRITABLE for character in word):
        raise DaemonError(f"control characters and bytes that are no UTF-8 cannot stand in a service's file: {word!a}")
