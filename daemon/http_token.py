"""The token that has to come with what reaches the daemon over TCP: a secret in a file of its owner's alone."""

import os
import secrets
import stat
from pathlib import Path

from daemon.errors import DaemonError
from daemon.paths import private_directory, token_path

_BYTES = 32
_SHORTEST = 16


def ensured_token(path: Path) -> str:
    """The token in `path`, which is made with a new one when it is not there; DaemonError for one that is no secret."""
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    try:
        _make(path)
    except FileExistsError:
        pass  # another has made it at the same time
    except OSError as error:
        raise DaemonError(f"the token file {path} cannot be made: {error.strerror} (daemon.http.token_file)") from error
    try:
        return _read(path)
    except FileNotFoundError:
        raise DaemonError(f"the token file {path} is a link to nothing (daemon.http.token_file)") from None


def _make(path: Path) -> None:
    if path == token_path():
        private_directory(path.parent)
    # Under its name it is never without its content: a client may look for it at any time.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 it is open already
            file.write(f"{secrets.token_urlsafe(_BYTES)}\n")
        os.link(partial, path)
    finally:
        partial.unlink()


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8") as file:  # noqa: PTH123 what was looked at is what is read
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise DaemonError(f"the token file {path} must be a file of yours alone: chmod 600, or remove it")
            told = file.read().strip()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise DaemonError(f"the token file {path} cannot be read: {error} (daemon.http.token_file)") from error
    if len(told) < _SHORTEST or not told.isascii() or not told.isprintable() or " " in told:
        raise DaemonError(f"the token file {path} must hold one word of {_SHORTEST} characters or more: remove it")
    return told
