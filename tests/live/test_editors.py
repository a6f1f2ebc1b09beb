"""docs/editors.md: every block reads, and those that it says a test runs are run as they stand.

They are run against a daemon that echoes under the page's names of models. Only its port is another than the page's.
"""

import asyncio
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import real_editor
from tests.live.editors_page import ADDRESS, Block, block, blocks
from tests.programs import ECHO, HELD, entry
from tests.world import Wire, World, printed, until, user

STATUSES = ("Run by a test", "Run by hand", "Not run here")
MODELS = ("claude:sonnet", "copilot:gpt-5")
QUESTION = 'Grüße, 日本 «x» "y" \\z'

pytestmark = pytest.mark.live


class Home:
    """A daemon, and whoever uses it at home: the state is where it is without `XDG_STATE_HOME`."""

    def __init__(self, world: World, address: str) -> None:
        self.world = world
        self._address = address

    async def run(self, *command: str | Path, **env: str) -> str:
        """What a program prints, to its good end. `env` is more of its environment."""
        return await printed(*command, env=self.world.env | env, cwd=self.world.root)

    def block(self, heading: str, language: str, nth: int = 0) -> str:
        """A block of the page."""
        return block(heading, language, nth).replace(ADDRESS, self._address)

    def file(self, name: str, text: str) -> Path:
        """Writes a file."""
        path = self.world.root / name
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    world = World()
    del world.env["XDG_STATE_HOME"]
    try:
        doors = yaml.safe_load(block("Editors and tools", "yaml").replace(ADDRESS, "127.0.0.1:0"))
        served: dict[str, Any] = yaml.safe_load("runners:\n" + ECHO + entry(world, "held", HELD))
        names = {"aliases": dict.fromkeys(MODELS, "echo")}
        with world.daemon(world.config(json.dumps(doors | served | names))) as daemon:
            _, tcp = daemon.wait_for("daemon.ready")["http"]
            yield Home(world, tcp.removeprefix("http://"))
    finally:
        world.close()


def read(one: Block) -> None:
    match one.language:
        case "json":
            json.loads(one.text)
        case "toml":
            tomllib.loads(one.text)
        case "yaml":
            yaml.safe_load(one.text)
        case "python":
            compile(one.text, one.heading, "exec")


@pytest.mark.parametrize("one", blocks(), ids=lambda one: f"{one.heading}-{one.language}")
def test_every_block_reads(one: Block) -> None:
    assert one.language in ("json", "toml", "yaml", "python", "sh", "lua", "elisp")
    read(one)


def test_every_heading_with_a_block_says_how_it_is_known() -> None:
    headings = dict.fromkeys(one.heading for one in blocks())
    said = {one.heading for one in blocks() if any(one.before.lstrip().startswith(status) for status in STATUSES)}
    assert [heading for heading in headings if heading not in said] == ["Editors and tools"]


async def test_sh_lua_and_lisp_read_too(home: Home) -> None:
    for number, one in enumerate(blocks()):
        file = home.file(f"block{number}", one.text)
        if one.language == "sh":
            await home.run("/bin/sh", "-n", file)
        elif one.language == "lua":
            check = home.file(
                "check.lua", f"if not loadfile({json.dumps(str(file))}) then vim.cmd('cquit') end vim.cmd('quit')"
            )
            await home.run(
                real_editor("nvim"), "--headless", "-n", "-i", "NONE", "-u", "NONE", "-c", f"luafile {check}"
            )
        elif one.language == "elisp":
            check = home.file(
                "check.el", f'(with-temp-buffer (insert-file-contents "{file}") (emacs-lisp-mode) (check-parens))'
            )
            await home.run(real_editor("emacs"), "--batch", "-Q", "-l", check)


@pytest.mark.parametrize("nth", [0, 1], ids=["unix", "tcp"])
async def test_curl(home: Home, nth: int) -> None:
    if shutil.which("curl", path=home.world.env["PATH"]) is None:
        pytest.skip("curl is NOT TESTED: it is not installed")
    streamed = await home.run("/bin/sh", "-c", home.block("curl", "sh", nth))
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    if nth == 0:
        said = [choice["delta"].get("content") for event in events for choice in event["choices"]]
        assert streamed.endswith("data: [DONE]\n\n")
    else:
        said = [event["delta"].get("text") for event in events if event["type"] == "content_block_delta"]
        assert events[-1]["type"] == "message_stop"
    assert "".join(text or "" for text in said) == "Hi"


@pytest.mark.parametrize(("nth", "printed"), [(0, "HiHi"), (1, "Hi\nHi\nHi\n")], ids=["tcp", "unix"])
async def test_python(home: Home, nth: int, printed: str) -> None:
    assert await home.run(sys.executable, "-W", "error", "-c", home.block("Python", "python", nth)) == printed


ASK = {
    "nvim": """
        vim.g.runnerd_model = vim.env.MODEL
        vim.cmd("Ask " .. vim.env.QUESTION)
        local text = function() return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, true), "\\n") end
        vim.wait(10000, function() return text():find(vim.env.EXPECTED, 1, true) end, 20)
        io.stdout:write(text())
        vim.cmd("qall!")
    """,
    "emacs": """
        (setq runnerd-model (getenv "MODEL"))
        (runnerd-ask (getenv "QUESTION"))
        (with-timeout (10) (while (process-live-p (get-process "runnerd")) (accept-process-output nil 0.02)))
        (princ (buffer-string))
    """,
}
"""Asks, waits for the answer and prints its buffer."""

ASK_AND_CLOSE = {
    "nvim": """
        vim.g.runnerd_model = "held"
        vim.cmd("Ask hold")
        local text = function() return vim.api.nvim_buf_get_lines(0, 0, -1, true)[1] end
        vim.wait(10000, function() return text() == "so far" end, 20)
        io.stdout:write(text())
        vim.cmd("close")
        vim.fn.writefile({}, vim.env.CLOSED)
        vim.wait(60000, function() return vim.fn.filereadable(vim.env.END) == 1 end, 20)
        vim.cmd("qall!")
    """,
    "emacs": """
        (setq runnerd-model "held")
        (runnerd-ask "hold")
        (with-timeout (10) (while (not (equal (buffer-string) "so far")) (accept-process-output nil 0.02)))
        (princ (buffer-string))
        (kill-buffer)
        (write-region "" nil (getenv "CLOSED"))
        (with-timeout (60) (while (not (file-exists-p (getenv "END"))) (sleep-for 0.02)))
    """,
}
"""Asks, prints the beginning of the answer and closes its buffer; then CLOSED is there, and it stays until END is:
longer than the test has patience, so that it is not its own end that ends the chat."""


class Editor:
    """An editor with the page's block in its configuration."""

    def __init__(self, home: Home, name: str) -> None:
        self._home = home
        self._program = real_editor(name)
        self._name = name

    async def does(self, scripts: dict[str, str], **env: str) -> str:
        """What it prints when it does what the script says, to its good end."""
        heading, language, suffix = {
            "nvim": ("Neovim without a plugin", "lua", "lua"),
            "emacs": ("Emacs without a package", "elisp", "el"),
        }[self._name]
        configured = self._home.file(f"init.{suffix}", self._home.block(heading, language))
        script = self._home.file(f"script.{suffix}", scripts[self._name])
        options: dict[str, list[str | Path]] = {
            "nvim": ["--headless", "-n", "-i", "NONE", "-u", configured, "-c", f"luafile {script}"],
            "emacs": ["--batch", "-Q", "-l", configured, "-l", script],
        }
        return await self._home.run(self._program, *options[self._name], **env)


@pytest.fixture(params=["nvim", "emacs"])
def editor(home: Home, request: pytest.FixtureRequest) -> Editor:
    return Editor(home, request.param)


async def test_the_answer_is_in_the_editors_buffer(editor: Editor) -> None:
    assert await editor.does(ASK, MODEL="echo", QUESTION=QUESTION, EXPECTED=QUESTION) == QUESTION


async def test_what_went_wrong_is_in_the_editors_buffer(home: Home, editor: Editor) -> None:
    async with await Wire.connect(home.world.socket) as wire:
        message = (await wire.call("chat", model="nobody", messages=user("hi")))["error"]["message"]
    assert await editor.does(ASK, MODEL="nobody", QUESTION="hi", EXPECTED=message) == message


async def test_closing_the_buffer_ends_the_chat(home: Home, editor: Editor, tmp_path: Path) -> None:
    closed, end = tmp_path / "closed", tmp_path / "end"

    async def is_closed() -> bool:
        return closed.exists()

    async def nothing_runs() -> bool:
        rows = (await wire.call("status"))["result"]["runners"]
        return all(row["running"] == 0 for row in rows)

    async with await Wire.connect(home.world.socket) as wire, asyncio.TaskGroup() as group:
        editing = group.create_task(editor.does(ASK_AND_CLOSE, CLOSED=str(closed), END=str(end)))
        await until(is_closed)
        await until(nothing_runs)
        end.touch()
        assert await editing == "so far"
