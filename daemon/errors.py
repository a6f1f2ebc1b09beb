"""What can go wrong around the daemon itself, and how a command then ends. Those of a chat are `runners.errors`."""

from typing import Any

EXIT_NO, EXIT_NO_DAEMON, EXIT_TRY_LATER, EXIT_CONFIG, EXIT_INTERRUPTED = 1, 69, 75, 78, 130
"""The exit codes of the command besides 0 and 2, which is wrong usage."""


class DaemonError(Exception):
    """The message is for a person, and says what to do."""


class UnsafeDirectoryError(DaemonError):
    """The directory of the socket could be tampered with by others."""


class AlreadyRunningError(DaemonError):
    """Another daemon serves the socket."""


class NoDaemonError(DaemonError):
    """Nobody answers on the socket."""


class NotStartedError(DaemonError):
    """A daemon was started and did not come up."""


class WrongConfigError(NotStartedError):
    """Its configuration is wrong; the message is what it says of that itself."""


class ConnectionLostError(DaemonError):
    """The daemon went away in the middle of a call."""


class CallError(DaemonError):
    """The daemon answered a call with an error: `data` is the RunnerError's fields where there is one."""

    def __init__(self, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data or {}
