"""A daemon's own environment: what it must not have been given, and how it gets rid of that.

The environment that a process began with stays readable in /proc and is seen by whatever it starts, so the daemon
begins once more.
"""

import os
import sys

from daemon.config import Config
from daemon.paths import VARIABLES
from runners.wire import ownership
from runners.wire.environment import child_environment

_SERVICE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def is_marked() -> bool:
    """Whether we were started from inside a CLI of another daemon, which would end us as its own."""
    return ownership.VARIABLE in os.environ


def execute_again(config: Config, *last_arguments: str) -> None:
    """Begins this program anew, as the same process, with `last_arguments` added to those it has.

    Its environment is then what every CLI may see, and what the daemon and the entries of `config` read by name.
    """
    named = {name for settings in config.runners.values() for name in settings.variables}
    kept = child_environment(
        os.environ, env={}, env_pass=sorted(named.union(VARIABLES, _SERVICE_MANAGER) - {ownership.VARIABLE})
    )
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:], *last_arguments], kept)  # noqa: S606 no shell is meant
