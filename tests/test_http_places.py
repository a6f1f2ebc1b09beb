"""Where the daemon listens for HTTP: beside its socket, elsewhere, on loopback, and nowhere that others could reach."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.http_client import RUNNERS, Http, ask, bearer, http_socket, mode, refused, tcp
from tests.world import World


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:1",
        "8.8.8.8:8765",
        "192.168.0.1:8765",
        "[::]:8765",
        "[2001:db8::1]:8765",
        "machine.example:8765",
        "127.0.0.1",
        "127.0.0.1:",
        ":8765",
        "8765",
        "127.0.0.1:70000",
        "127.0.0.1:-1",
        "127.0.0.1:http",
        "http://127.0.0.1:8765",
        "127.0.0.1:8765/",
        "::1:8765",
        "[127.0.0.1:8765",
        "",
    ],
)
def test_an_address_that_is_not_the_machine_s_own_is_refused_with_its_key(world: World, address: str) -> None:
    path = world.config(f'daemon:\n  http:\n    tcp: "{address}"\n' + RUNNERS)
    done = world.runnerd("config", "check", "--config", str(path))
    assert done.returncode == 78
    assert f"{path}:3: daemon.http.tcp: " in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tcp: 8765", "daemon.http.tcp"),
        ("unix: [a]", "daemon.http.unix"),
        ("token_file: 5", "daemon.http.token_file"),
        ("token_file: here", "daemon.http.token_file"),
        ("unix: ./http.sock", "daemon.http.unix"),
        ("port: 8765", "daemon.http.port"),
    ],
)
def test_a_wrong_key_of_http_is_named(world: World, text: str, key: str) -> None:
    path = world.config(f"daemon:\n  http:\n    {text}\n" + RUNNERS)
    done = world.runnerd("config", "check", "--config", str(path))
    assert (done.returncode, f":3: {key}: " in done.stderr.decode()) == (78, True), done.stderr.decode()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "127.9.9.9:0", "[::1]:0"])
async def test_every_address_of_the_machine_s_own_is_served(world: World, address: str) -> None:
    if address == "[::1]:0" and not has_ipv6():
        pytest.skip("[::1] IS NOT TESTED: there is no IPv6 here")
    with world.daemon(world.config(f'daemon: {{http: {{tcp: "{address}"}}}}\n' + RUNNERS)) as daemon:
        host, port = tcp(daemon)
        assert host == {"localhost:0": "127.0.0.1"}.get(address, address.removesuffix(":0").strip("[]"))
        assert port != 0
        assert (await ask((host, port), "GET", "/healthz")).status == 401
        assert (await ask((host, port), "GET", "/healthz", headers=bearer(daemon))).status == 200


async def test_a_port_that_another_one_has_is_named_and_nothing_is_left_behind(world: World) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = world.config(f'daemon: {{http: {{tcp: "127.0.0.1:{port}"}}}}\n' + RUNNERS)
        said = refused(world, config)
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use (daemon.http.tcp)" in said
    with world.daemon(config) as daemon:
        assert tcp(daemon) == ("127.0.0.1", port)
        async with await Http.connect(tcp(daemon)) as client:
            assert (await client.ask("GET", "/healthz", headers=bearer(daemon))).status == 200
    # A connection that the daemon has closed keeps nobody from its port.
    with world.daemon(config) as daemon:
        assert (await ask(tcp(daemon), "GET", "/healthz", headers=bearer(daemon))).status == 200


@pytest.mark.parametrize("is_on_tcp", [True, False])
async def test_without_unix_there_is_no_socket_for_http(world: World, is_on_tcp: bool) -> None:
    http = 'unix: false, tcp: "127.0.0.1:0"' if is_on_tcp else "unix: false"
    with world.daemon(world.config(f"daemon: {{http: {{{http}}}}}\n" + RUNNERS)) as daemon:
        assert not http_socket(daemon).exists()
        assert len(daemon.wait_for("daemon.ready")["http"]) == is_on_tcp
        assert world.runnerd("chat", "-m", "echo", "Hi").stdout == b"Hi"
        if is_on_tcp:
            assert (await ask(tcp(daemon), "GET", "/healthz", headers=bearer(daemon))).status == 200


@pytest.mark.parametrize("named", ["{home}/mine/web.sock", "~/mine/web.sock"])
async def test_the_socket_for_http_may_be_elsewhere(world: World, named: str) -> None:
    config = world.config(f"daemon: {{http: {{unix: {named.format(home=world.home)}}}}}\n" + RUNNERS)
    path = world.home / "mine" / "web.sock"
    with world.daemon(config) as daemon:
        assert daemon.wait_for("daemon.ready")["http"] == [str(path)]
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        assert (await ask(path, "GET", "/healthz")).json["pid"] == daemon.process.pid
        assert not http_socket(daemon).exists()
    assert not path.exists()


@pytest.mark.parametrize("bits", [0o755, 0o710], ids=oct)
def test_a_directory_that_is_open_to_others_is_refused_for_the_socket_too(world: World, bits: int) -> None:
    (world.home / "open").mkdir()
    (world.home / "open").chmod(bits)
    config = world.config(f"daemon: {{http: {{unix: {world.home}/open/web.sock}}}}\n" + RUNNERS)
    assert f"{world.home}/open is open to others" in refused(world, config)


def test_one_socket_cannot_be_both(world: World) -> None:
    config = world.config(f"daemon: {{http: {{unix: {world.socket}}}}}\n" + RUNNERS)
    assert str(world.socket) in refused(world, config)


async def test_two_daemons_of_one_directory_both_have_http(world: World) -> None:
    config = world.config(RUNNERS)
    sockets = [world.socket, world.socket.with_name("other.sock")]
    with world.daemon(config) as first, world.daemon(config, "--socket", str(sockets[1])) as second:
        seen = []
        for daemon in (first, second):
            [path] = daemon.wait_for("daemon.ready")["http"]
            seen.append((await ask(Path(path), "GET", "/healthz")).json["pid"])
        assert seen == [first.process.pid, second.process.pid]
    assert not list(world.socket.parent.glob("*.sock"))


async def test_a_socket_that_a_killed_daemon_has_left_is_replaced(world: World) -> None:
    config = world.config(RUNNERS)
    with world.daemon(config) as killed:
        killed.process.kill()
        await asyncio.to_thread(killed.wait)
        assert http_socket(killed).exists()
    with world.daemon(config) as daemon:
        assert (await ask(http_socket(daemon), "GET", "/healthz")).json["pid"] == daemon.process.pid
