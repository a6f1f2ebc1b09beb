"""A CLI by hand in its one-shot mode: a process for each turn, which goes on with what the last has left behind."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.reading import WAIT_S, Child, Timing, lines
from tests.bench.targets import BY_HAND
from tests.bench.way import TURNS, prompt
from tests.world import World


class OneShot:
    """The prompt goes in by stdin, JSON lines come out; one with `text` in it is a piece of the answer.

    `resumes` are the arguments that go on with the latest conversation of the home, in which `files` stand.
    """

    name = BY_HAND

    def __init__(
        self,
        world: World,
        argv: Sequence[str],
        env: dict[str, str],
        *,
        text: bytes,
        resumes: Sequence[str],
        files: Mapping[str, str] | None = None,
    ) -> None:
        self._argv = list(argv)
        self._env = env
        self._text = text
        self._resumes = list(resumes)
        self._files = dict(files or {})
        self._cwd = world.root / "by-hand"
        self._cwd.mkdir()
        self._homes = world.home / "by-hand"
        for turn in range(1, TURNS):
            self._turn(turn, self._homes / "five", *(self._resumes if turn > 1 else []))

    def prepare(self) -> None:
        """A process of a user's own begins from nothing."""

    def new(self) -> Timing:
        return self._turn(1, self._homes / "none")

    def sixth(self) -> Timing:
        # Its sixth each time: the turn stays in the home.
        home = self._homes / "six"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self._homes / "five", home, symlinks=True)
        return self._turn(TURNS, home, *self._resumes)

    def _turn(self, turn: int, home: Path, *options: str) -> Timing:
        for name, text in self._files.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(text, encoding="utf-8")
        home.mkdir(parents=True, exist_ok=True)
        began_s = time.monotonic()
        env = self._env | {"GEMINI_CLI_HOME": str(home), "XDG_DATA_HOME": str(home)}
        child = Child([*self._argv, *options], env=env, cwd=self._cwd, stdin=prompt(turn).encode())
        first_s = 0.0
        for line in lines(child.output):
            if not first_s and self._text in line:
                first_s = time.monotonic()
        ended_s = time.monotonic()
        assert first_s, "it ended without an answer"
        child.process.wait(timeout=WAIT_S)
        child.end()
        return Timing(first_s - began_s, ended_s - began_s)

    def close(self) -> None:
        """Nothing runs between turns."""
