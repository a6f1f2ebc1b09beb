"""The world of a test: a private HOME and an environment built from nothing, real daemons in it, raw socket clients.

Every process that a test starts, and whatever that starts, carries the world's HOME: that is how what was left
behind is found.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

END_S = 20.0
CHECKOUT = Path(__file__).parents[1]

T = TypeVar("T")


class World:
    """Directories and environment of one test. `env` has no variable of this machine but PATH."""

    def __init__(self) -> None:
        # Short: a Unix socket's path may have 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="rd-"))
        self.home = self.root / "home"
        self.state = self.root / "state"
        for directory in (self.home, self.state, self.root / "run"):
            directory.mkdir(mode=0o700)
        self.env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/local/bin{os.pathsep}/usr/bin{os.pathsep}/bin",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "XDG_STATE_HOME": str(self.state),
        }
        self.socket = self.root / "run" / "runnerd" / "runnerd.sock"

    def config(self, text: str) -> Path:
        """Writes a runners.yaml."""
        path = self.root / "runners.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def program(self, name: str, source: str) -> Path:
        """Writes an executable Python program."""
        path = self.root / name
        path.write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf-8")
        path.chmod(0o700)
        return path

    def runnerd(
        self, *arguments: str, stdin: bytes = b"", cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """Runs a `runnerd` command to its end."""
        command = [sys.executable, "-m", "runnerd", *arguments]
        return subprocess.run(command, env=self.env, input=stdin, capture_output=True, timeout=60, check=False, cwd=cwd)

    def python(self, source: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        """Runs a Python program that may import what is tested, in a process of its own, to its good end."""
        command = [sys.executable, "-W", "error", "-c", source, *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, timeout=60, check=False, cwd=CHECKOUT)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        return done

    @contextmanager
    def daemon(self, config: Path | None = None, *arguments: str) -> Iterator["Daemon"]:
        """A real `runnerd serve`, ready; ended with SIGTERM, and it must end well."""
        options = [] if config is None else ["--config", str(config)]
        daemon = Daemon(self, [sys.executable, "-m", "runnerd", "serve", *options, *arguments])
        try:
            daemon.wait_for("daemon.ready")
            yield daemon
        finally:
            daemon.end()

    def processes(self) -> list[psutil.Process]:
        """Every living process of this world."""
        return [process for process in psutil.process_iter() if _home(process) == str(self.home)]

    def close(self) -> None:
        """Removes the world; whatever still runs in it is a failure, after it was killed."""
        # What was killed a moment ago may not have gone yet.
        _, left = psutil.wait_procs(self.processes(), timeout=5)
        described = [f"{process.pid} {' '.join(command(process)) or '(gone)'}" for process in left]
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=END_S)
        shutil.rmtree(self.root)
        assert not described, f"left behind: {described}"


class Daemon:
    """A running `runnerd serve` and its log. `log` holds every event that it has written so far."""

    def __init__(self, world: World, command: list[str], **how: Any) -> None:
        self.world = world
        self.log: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._log_ended = False
        self.process = subprocess.Popen(
            command, env=world.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **how
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def wait_for(self, event: str) -> dict[str, Any]:
        """Waits until the daemon has logged an event; fails when it ends without."""
        with self._changed:
            self._changed.wait_for(lambda: self._find(event) or self._log_ended, timeout=END_S)
            found = self._find(event)
        assert found, f"no {event}; the log: {self.log}"
        return found

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Waits for its end; the exit code."""
        code = self.process.wait(timeout=END_S)
        self._reader.join(timeout=END_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def end(self) -> None:
        """Ends it, well or not."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            raise
        assert code in (0, -signal.SIGKILL), f"the daemon exited with {code}; its log: {self.log}"

    def _find(self, event: str) -> dict[str, Any] | None:
        return next((entry for entry in self.log if entry.get("event") == event), None)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                try:
                    self.log.append(json.loads(line))
                except ValueError:
                    self.log.append({"event": "not JSON", "line": line.decode(errors="replace")})
                self._changed.notify_all()
        with self._changed:
            self._log_ended = True
            self._changed.notify_all()


class Wire:
    """A raw client of the socket: what it sends and reads are lines. `patience_s` is how long it waits for each."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.patience_s = END_S
        self.reader = reader
        self.writer = writer
        self._last_id = 0

    @classmethod
    async def connect(cls, path: Path) -> "Wire":
        return cls(*await asyncio.open_unix_connection(path, limit=256 * 1024 * 1024))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def send(self, message: bytes | dict[str, Any]) -> None:
        """Sends raw bytes as they are, an object as one line."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        self.writer.write(data)
        await self.writer.drain()

    async def request(self, method: str, **params: Any) -> int:
        """Sends a request and returns its id."""
        self._last_id += 1
        await self.send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        return self._last_id

    async def read(self) -> dict[str, Any]:
        """The next message; ConnectionError when there is none any more."""
        async with asyncio.timeout(self.patience_s):
            line = await self.reader.readline()
        if not line:
            raise ConnectionResetError("the daemon closed the connection")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    async def read_until_response(self, request_id: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The chunks of a request and its response; messages of others are passed over."""
        chunks = []
        while True:
            message = await self.read()
            if message.get("method") == "chat.chunk" and message["params"]["id"] == request_id:
                chunks.append(message["params"]["chunk"])
            elif message.get("id") == request_id and "method" not in message:
                return chunks, message

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A request and its response: with a `result` or an `error`."""
        return (await self.read_until_response(await self.request(method, **params)))[1]


async def printed(*command: str | Path, env: dict[str, str], cwd: Path, limit_s: float = END_S) -> str:
    """What a program prints, to its good end, without blocking whoever it talks to."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit_s):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, (output, errors)
    return output.decode()


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    """Looks again and again until what it sees is true; fails when that takes too long."""
    async with asyncio.timeout(END_S):
        while not (seen := await look()):  # noqa: ASYNC110 it watches other processes: no event of ours tells
            await asyncio.sleep(0.02)
    return seen


def system(text: str) -> list[dict[str, Any]]:
    """A system prompt, to stand before a conversation."""
    return [{"role": "system", "content": text}]


def assistant(text: str, **fields: object) -> dict[str, Any]:
    """A message of the past."""
    return {"role": "assistant", "content": text} | fields


def user(text: str) -> list[dict[str, Any]]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def _home(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("HOME") if process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def command(process: psutil.Process) -> list[str]:
    """What it was started with; nothing for one that has gone while it was looked at."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
