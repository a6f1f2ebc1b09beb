"""The user's own service manager, systemd or launchd: where our file lies, and how a service begins and ends.

Owns that file. What stands in it is `daemon.service_unit`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.errors import DaemonError
from daemon.paths import private_directory, state_directory
from daemon.service_unit import HEADER, LABEL, UNIT, agent, unit_text

_ASK_S = 30.0
# A start waits for the daemon to be ready, a stop for its chats: the manager itself bounds both.
_CHANGE_S = 600.0


class ServiceManager(ABC):
    """What systemd and launchd have in common. `path` is the file; `by_hand` and `by_hand_end` do what we could not."""

    path: Path
    by_hand: Sequence[str]
    by_hand_end: Sequence[str]

    @abstractmethod
    def content(self, command: Sequence[str], environment: Mapping[str, str], drain_s: float) -> bytes:
        """What belongs into the file."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is there to be asked, and has read what files there are now."""

    @abstractmethod
    def start(self, *, replaced: bool) -> None:
        """Starts the service, now and at each login; with `replaced` one that runs is started again."""

    @abstractmethod
    def stop(self) -> None:
        """Ends the service, and starts it no more."""

    @abstractmethod
    def enabled(self) -> str | None:
        """Whether it starts at login, in the manager's own word; None when it does not say."""

    @abstractmethod
    def active(self) -> str | None:
        """Whether it runs: `active`, or the manager's own word; None when it does not say."""

    def written(self) -> bytes | None:
        """What the file holds; None when there is none. Raises DaemonError when it is not ours."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DaemonError(f"{self.path} cannot be read: {error.strerror}") from error
        if HEADER.encode() not in content:
            raise DaemonError(f"{self.path} is not runnerd's own: move it out of the way first")
        return content

    def write(self, content: bytes) -> None:
        """Puts the file in place, whole or not at all. It holds no secret and is open to others, as its kind is."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=f".{LABEL}-", delete=False) as part:
            try:
                part.write(content)
                part.flush()
                os.fchmod(part.fileno(), 0o644)
                Path(part.name).replace(self.path)
            except BaseException:
                Path(part.name).unlink()
                raise

    def remove(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)


class Systemd(ServiceManager):
    """The user's systemd."""

    by_hand = ("systemctl --user daemon-reload", f"systemctl --user enable --now {UNIT}")
    # By then its file is gone, and `disable` knows it no more.
    by_hand_end = (f"systemctl --user stop {UNIT}", "systemctl --user daemon-reload")

    def __init__(self, environment: Mapping[str, str]) -> None:
        configured = Path(environment.get("XDG_CONFIG_HOME", ""))
        home = configured if configured.is_absolute() else Path.home() / ".config"
        self.path = home / "systemd" / "user" / UNIT

    def content(self, command: Sequence[str], environment: Mapping[str, str], drain_s: float) -> bytes:
        """A unit."""
        return unit_text(command, environment, drain_s).encode()

    def answers(self) -> bool:
        """Whether it reloads its units."""
        return _run("systemctl", "--user", "daemon-reload") is not None

    def start(self, *, replaced: bool) -> None:
        """`enable --now`, or `enable` and `restart`; blocks until the daemon is ready."""
        # What failed too often, with the file that was there before, may try again. It fails where nothing ever did.
        _run("systemctl", "--user", "reset-failed", UNIT)
        if replaced:
            _change("systemctl", "--user", "enable", UNIT)
            _change("systemctl", "--user", "restart", UNIT)
        else:
            _change("systemctl", "--user", "enable", "--now", UNIT)

    def stop(self) -> None:
        """`disable --now`; blocks until the daemon has ended."""
        _change("systemctl", "--user", "disable", "--now", UNIT)

    def enabled(self) -> str | None:
        """As `is-enabled` says."""
        return _word("systemctl", "--user", "is-enabled", UNIT)

    def active(self) -> str | None:
        """As `is-active` says."""
        return _word("systemctl", "--user", "is-active", UNIT)

    def remove(self) -> None:
        """Removes the unit, the link to it that a manager leaves which was not there to be asked, and tells it."""
        super().remove()
        (self.path.parent / "default.target.wants" / UNIT).unlink(missing_ok=True)
        _run("systemctl", "--user", "daemon-reload")


class Launchd(ServiceManager):
    """The launchd of the user's session."""

    def __init__(self) -> None:
        self._domain = f"gui/{os.getuid()}"
        self._target = f"{self._domain}/{LABEL}"
        self.path = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self.by_hand = (f"launchctl bootstrap {self._domain} {self.path}",)
        self.by_hand_end = (f"launchctl bootout {self._target}",)

    def content(self, command: Sequence[str], environment: Mapping[str, str], drain_s: float) -> bytes:
        """An agent. Its log is in the state directory: launchd keeps none."""
        return agent(command, environment, drain_s, private_directory(state_directory()) / "service.log")

    def answers(self) -> bool:
        """Whether the user has a session."""
        return _run("launchctl", "print", self._domain) is not None

    def start(self, *, replaced: bool) -> None:
        """`bootstrap`, after what runs was ended when it is the old one."""
        if replaced:
            self.stop()
        if self._loaded() is None:
            _change("launchctl", "bootstrap", self._domain, str(self.path))

    def stop(self) -> None:
        """`bootout`, until it is gone: launchd returns before, and takes no new one until then."""
        if self._loaded() is None:
            return
        _change("launchctl", "bootout", self._target)
        until_s = time.monotonic() + _CHANGE_S
        while self._loaded() is not None:
            if time.monotonic() > until_s:
                raise DaemonError(f"{self._target} has not ended after {_CHANGE_S:.0f} s")
            time.sleep(0.2)

    def enabled(self) -> str | None:
        """Whether it is loaded: launchd has one word less."""
        if not self.answers():
            return None
        return "disabled" if self._loaded() is None else "enabled"

    def active(self) -> str | None:
        """Whether a process runs."""
        if not self.answers():
            return None
        return "active" if "state = running" in (self._loaded() or "") else "inactive"

    def _loaded(self) -> str | None:
        return _run("launchctl", "print", self._target)


def service_manager() -> ServiceManager:
    """The one of this system."""
    return Launchd() if sys.platform == "darwin" else Systemd(os.environ)


def _run(*command: str) -> str | None:
    """What a program writes when it says yes; None when it says no or is not there."""
    done = _done(command, _ASK_S)
    return None if done is None or done.returncode else done.stdout


def _word(*command: str) -> str | None:
    """The word that a program answers with, whatever its exit code; None when there is none."""
    done = _done(command, _ASK_S)
    return (done.stdout.strip() or None) if done else None


def _change(*command: str) -> None:
    done = _done(command, _CHANGE_S)
    if done is None or done.returncode:
        said = done.stderr.strip() if done else "not found"
        raise DaemonError(f"`{' '.join(command)}` failed: {said}")


def _done(command: Sequence[str], limit_s: float) -> "subprocess.CompletedProcess[str] | None":
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        return subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise DaemonError(f"`{' '.join(command)}` has not ended after {limit_s:.0f} s") from error
