"""Where things are: the socket, the state, the configuration. Light, for every command starts here."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from platformdirs import user_config_path, user_state_path

from daemon.errors import UnsafeDirectoryError

_APP = "runnerd"
_SOCKET = "runnerd.sock"

VARIABLES = ("RUNNERD_CONFIG", "RUNNERD_SOCKET")
"""The paths that the environment may name."""


def state_directory() -> Path:
    """What outlives the daemon: the runners' private directories."""
    return user_state_path(_APP)


def token_path() -> Path:
    """The secret that has to come with what is sent over TCP, unless the configuration names another file."""
    return state_directory() / "token"


def log_path() -> Path:
    """The log of a daemon that no terminal or service shows. Its directory is made."""
    return private_directory(state_directory()) / "runnerd.log"


def socket_path() -> Path:
    """The socket that clients and daemon agree on: `$RUNNERD_SOCKET`, else one in the user's own runtime directory."""
    if named := os.environ.get("RUNNERD_SOCKET"):
        return Path(named)
    # By hand: platformdirs, not told or not content with what it is told, names a directory that others can write to.
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if runtime.is_absolute():
        return runtime / _APP / _SOCKET
    return state_directory() / "run" / _SOCKET


def http_socket_path(rpc: Path) -> Path:
    """The socket for HTTP of a daemon whose other socket is `rpc`."""
    return rpc.with_name("http.sock" if rpc.name == _SOCKET else f"{rpc.stem}-http.sock")


def named_config() -> Path | None:
    """The runners.yaml that the environment names."""
    named = os.environ.get("RUNNERD_CONFIG")
    return Path(named) if named else None


def user_config() -> Path:
    """The user's own runners.yaml. Never one of the current directory: a checkout must not configure a daemon."""
    return user_config_path(_APP) / "runners.yaml"


def built_in_config() -> Path:
    """The runners.yaml of this project: beside the package when installed, above it in a checkout."""
    here = Path(__file__).parent
    installed = here / "runners.yaml"
    return installed if installed.exists() else here.parent / "runners.yaml"


def private_directory(path: Path) -> Path:
    """Makes `path` 0700, or makes sure that it is: ours, no symlink, closed to others. Raises UnsafeDirectoryError."""
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=True)
        found = path.lstat()
    except OSError as error:
        raise UnsafeDirectoryError(f"{path} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeDirectoryError(f"{path} is not a directory (a symbolic link will not do)")
    if found.st_uid != os.getuid():
        raise UnsafeDirectoryError(f"{path} belongs to another user (uid {found.st_uid})")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UnsafeDirectoryError(f"{path} is open to others: use a directory that only you can enter (chmod 700)")
    return path
