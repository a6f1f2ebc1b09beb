"""Where the daemon puts its socket and its state, and which places it refuses."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.unix_socket import lock_path
from tests.world import Daemon, Wire, World

CONFIG = "runners: {echo: {kind: echo}}\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


async def serves(daemon: Daemon, path: Path) -> bool:
    """Whether it is this daemon that answers on a socket."""
    async with await Wire.connect(path) as wire:
        return bool((await wire.call("version"))["result"]["pid"] == daemon.process.pid)


def refused(world: World, *arguments: str) -> str:
    """What a `serve` that must not start says."""
    done = world.runnerd("serve", "--config", str(world.config(CONFIG)), *arguments)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.stderr.decode()


@pytest.mark.parametrize("mask", [0o000, 0o077], ids=oct)
def test_the_socket_is_0600_in_a_directory_that_is_0700_whatever_the_umask(world: World, mask: int) -> None:
    with umask(mask), world.daemon(world.config(CONFIG)):
        assert stat.S_ISSOCK(world.socket.lstat().st_mode)
        assert mode(world.socket) == 0o600
        assert mode(world.socket.parent) == 0o700
        assert mode(lock_path(world.socket)) == 0o600
        assert mode(world.state / "runnerd") == 0o700


@pytest.mark.parametrize("bits", [0o755, 0o710, 0o701], ids=oct)
def test_a_socket_directory_that_is_open_to_others_is_refused(world: World, bits: int) -> None:
    world.socket.parent.mkdir()
    world.socket.parent.chmod(bits)
    assert f"{world.socket.parent} is open to others" in refused(world)
    assert list(world.socket.parent.iterdir()) == []


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_socket_directory_that_is_a_symbolic_link_is_refused(world: World, target: str) -> None:
    (world.root / "elsewhere").mkdir(mode=0o700)
    world.socket.parent.symlink_to(world.root / target)
    assert f"{world.socket.parent} is not a directory" in refused(world)
    assert list((world.root / "elsewhere").iterdir()) == []


def test_a_file_where_the_socket_directory_should_be_is_refused(world: World) -> None:
    world.socket.parent.write_text("precious")
    assert f"{world.socket.parent} is not a directory" in refused(world)
    assert world.socket.parent.read_text() == "precious"


def test_a_state_directory_that_is_open_to_others_is_refused(world: World) -> None:
    (world.state / "runnerd").mkdir(mode=0o755)
    assert f"{world.state / 'runnerd'} is open to others" in refused(world)


def test_a_file_where_the_state_directory_should_be_is_refused(world: World) -> None:
    (world.state / "runnerd").write_text("precious")
    assert f"{world.state / 'runnerd'} is not a directory" in refused(world)


def test_a_lock_that_is_a_symbolic_link_is_refused(world: World) -> None:
    world.socket.parent.mkdir(mode=0o700)
    lock_path(world.socket).symlink_to(world.root / "precious")
    assert str(lock_path(world.socket)) in refused(world)
    assert not (world.root / "precious").exists()


def test_a_file_that_is_no_socket_is_not_replaced(world: World) -> None:
    world.socket.parent.mkdir(mode=0o700)
    world.socket.write_text("precious")
    assert str(world.socket) in refused(world)
    assert world.socket.read_text() == "precious"


def test_a_file_whose_name_is_like_the_socket_s_is_not_written_to(world: World) -> None:
    world.socket.parent.mkdir(mode=0o700)
    precious = world.socket.with_name("poetry.lock")
    precious.write_text("precious")
    with world.daemon(world.config(CONFIG), "--socket", str(world.socket.with_name("poetry.sock"))):
        assert precious.read_text() == "precious"


def test_a_socket_that_another_program_answers_on_is_left_to_it(world: World) -> None:
    world.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(world.socket))
        other.listen()
        assert f"another program answers on {world.socket}" in refused(world)
    assert world.socket.exists()


def test_a_socket_path_that_is_too_long_is_refused(world: World) -> None:
    assert "longer than the system allows" in refused(world, "--socket", str(world.root / ("x" * 120)))


async def test_the_configuration_may_name_the_socket(world: World) -> None:
    path = world.root / "mine" / "my.sock"
    with world.daemon(world.config(f"daemon: {{socket: {path}}}\n" + CONFIG)) as daemon:
        assert await serves(daemon, path)
        assert world.runnerd("status", "--socket", str(path)).returncode == 0
        assert not world.socket.exists()


async def test_a_tilde_in_the_configured_socket_means_the_home_directory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Were it taken for a directory's name, that would be made here.
    world.env["PYTHONPATH"] = str(Path.cwd())
    monkeypatch.chdir(world.root)
    with world.daemon(world.config("daemon: {socket: ~/mine/my.sock}\n" + CONFIG)) as daemon:
        assert daemon.wait_for("daemon.ready")["socket"] == str(world.home / "mine" / "my.sock")


async def test_the_option_has_the_last_word_on_the_socket(world: World) -> None:
    path = world.root / "mine" / "my.sock"
    config = world.config(f"daemon: {{socket: {world.root / 'other.sock'}}}\n" + CONFIG)
    with world.daemon(config, "--socket", str(path)) as daemon:
        assert await serves(daemon, path)


@pytest.mark.parametrize("value", [None, "", "run"], ids=["unset", "empty", "relative"])
async def test_without_a_runtime_directory_the_socket_lives_under_the_state_directory(
    world: World, value: str | None
) -> None:
    world.env["TMPDIR"] = str(world.root)
    del world.env["XDG_RUNTIME_DIR"]
    if value is not None:
        world.env["XDG_RUNTIME_DIR"] = value
    with world.daemon(world.config(CONFIG)) as daemon:
        path = Path(daemon.wait_for("daemon.ready")["socket"])
        assert path == world.state / "runnerd" / "run" / "runnerd.sock"
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        status = world.runnerd("status")
        assert (status.returncode, status.stderr) == (0, b"")


async def test_without_a_state_directory_either_everything_lives_under_home(world: World) -> None:
    del world.env["XDG_RUNTIME_DIR"], world.env["XDG_STATE_HOME"]
    with world.daemon(world.config(CONFIG)) as daemon:
        path = Path(daemon.wait_for("daemon.ready")["socket"])
        assert path.is_relative_to(world.home)
        assert world.runnerd("status").returncode == 0


@pytest.mark.parametrize("runtime", ["open to others", "not there yet"])
async def test_daemon_and_clients_agree_on_the_runtime_directory_that_they_are_told(world: World, runtime: str) -> None:
    # As it is on WSL, in containers and after `su`.
    world.env["TMPDIR"] = str(world.root)
    if runtime == "not there yet":
        world.env["XDG_RUNTIME_DIR"] = str(world.root / "later")
    else:
        (world.root / "run").chmod(0o755)
    with world.daemon(world.config(CONFIG)) as daemon:
        path = Path(daemon.wait_for("daemon.ready")["socket"])
        assert path == Path(world.env["XDG_RUNTIME_DIR"]) / "runnerd" / "runnerd.sock"
        status = world.runnerd("status")
        assert (status.returncode, status.stderr) == (0, b"")
