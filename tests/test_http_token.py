"""The file of the token that has to come with what is sent over TCP: where it is, and which files are refused."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.http_client import ON_TCP, RUNNERS, ask, bearer, mode, refused, tcp, token_file
from tests.world import World

NOBODY = 65534


async def test_the_token_is_made_once_and_is_its_owner_s_alone(world: World) -> None:
    config = world.config(ON_TCP + RUNNERS)
    tokens = []
    for _ in range(2):
        before = os.umask(0)
        try:
            with world.daemon(config) as daemon:
                tokens.append(token_file(world).read_text())
                assert (await ask(tcp(daemon), "GET", "/healthz", headers=bearer(daemon))).status == 200
        finally:
            os.umask(before)
        assert mode(token_file(world)) == 0o600
    assert tokens[0] == tokens[1]
    assert len(tokens[0].strip()) >= 43  # 32 bytes
    assert not list(token_file(world).parent.glob(".token*"))


async def test_two_worlds_have_two_tokens(world: World) -> None:
    other = World()
    try:
        with (
            world.daemon(world.config(ON_TCP + RUNNERS)) as daemon,
            other.daemon(other.config(ON_TCP + RUNNERS)) as its,
        ):
            assert (await ask(tcp(its), "GET", "/healthz", headers=bearer(its))).status == 200
            assert (await ask(tcp(its), "GET", "/healthz", headers=bearer(daemon))).status == 401
    finally:
        other.close()


def test_without_tcp_no_token_is_made(world: World) -> None:
    with world.daemon(world.config(RUNNERS)):
        assert not token_file(world).exists()


def with_token(world: World, path: Path | str) -> Path:
    return world.config(f'daemon: {{http: {{tcp: "127.0.0.1:0", token_file: {path}}}}}\n' + RUNNERS)


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "not there"])
async def test_the_configuration_may_name_the_token_file(world: World, is_there: bool) -> None:
    path = world.home / "secret"
    if is_there:
        path.write_text("my-very-own-token\n")
        path.chmod(0o600)
    with world.daemon(with_token(world, "~/secret")) as daemon:
        token = path.read_text().strip()
        assert (token == "my-very-own-token") is is_there
        assert (await ask(tcp(daemon), "GET", "/healthz", headers={"x-api-key": token})).status == 200
        assert not token_file(world).exists()
    assert mode(path) == 0o600


async def test_a_token_file_may_be_a_link_to_one_of_its_owner_s_alone(world: World) -> None:
    kept, path = world.home / "kept", world.home / "secret"
    kept.write_text("my-very-own-token")
    kept.chmod(0o600)
    path.symlink_to(kept)
    with world.daemon(with_token(world, path)) as daemon:
        assert (await ask(tcp(daemon), "GET", "/healthz", headers={"x-api-key": "my-very-own-token"})).status == 200
    kept.chmod(0o644)
    assert f"the token file {path} must be a file of yours alone" in refused(world, with_token(world, path))


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o604, 0o620, 0o601], ids=oct)
def test_a_token_file_that_is_open_to_others_is_refused(world: World, bits: int) -> None:
    path = world.home / "secret"
    path.write_text("my-very-own-token")
    path.chmod(bits)
    assert f"the token file {path} must be a file of yours alone: chmod 600" in refused(world, with_token(world, path))
    assert path.read_text() == "my-very-own-token"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "short",
        "fifteen-letters",
        "two words are not a token",
        "ünïcödé-is-no-tökén",
        "a\x00b" * 10,
        "x\n" * 20,
    ],
    ids=ascii,
)
def test_a_token_file_without_a_token_is_refused(world: World, content: str) -> None:
    path = world.home / "secret"
    path.write_text(content)
    path.chmod(0o600)
    assert f"the token file {path} must hold one word of 16 characters" in refused(world, with_token(world, path))
    assert path.read_text() == content


def test_a_token_file_that_is_no_text_is_refused(world: World) -> None:
    path = world.home / "secret"
    path.write_bytes(b"\xff" * 40)
    path.chmod(0o600)
    assert f"the token file {path} cannot be read" in refused(world, with_token(world, path))


def _directory(path: Path) -> None:
    path.mkdir(mode=0o700)


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def _another_user_s(path: Path) -> None:
    path.write_text("my-very-own-token")
    path.chmod(0o600)
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize("made", [_directory, _pipe, _link_to_nothing, _another_user_s])
def test_what_is_no_file_of_the_user_s_own_is_refused_as_a_token_file(world: World, made: Any) -> None:
    if made is _another_user_s and os.getuid() != 0:
        pytest.skip("ANOTHER USER'S FILE IS NOT TESTED: only root can make one")
    path = world.home / "secret"
    made(path)
    assert f"the token file {path}" in refused(world, with_token(world, path))
    assert [found.name for found in world.home.iterdir()] == ["secret"]


def test_a_token_file_that_cannot_be_made_is_named(world: World) -> None:
    # Root may write where nobody may: what hinders it too are a file where the directory should be, and none at all.
    (world.home / "file").write_text("")
    for path, what in ((world.home / "file" / "secret", "read"), (world.home / "nowhere" / "secret", "made")):
        assert f"the token file {path} cannot be {what}" in refused(world, with_token(world, path))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere: see the test before")
def test_a_token_file_in_a_directory_that_may_not_be_written_to_is_named(world: World) -> None:
    (world.home / "closed").mkdir(mode=0o500)
    path = world.home / "closed" / "secret"
    assert f"the token file {path} cannot be made: Permission denied" in refused(world, with_token(world, path))
