"""A vendor's own SDK, in a Python program that has imported it and waits: an import is no part of a chat."""

import importlib.util
import json
import sys
from typing import Any

from tests.bench.reading import Child, Json, Timing, lines
from tests.bench.targets import SDK
from tests.world import CHECKOUT, World


class Sdk:
    """The program `module` and what it measures of itself."""

    name = SDK

    def __init__(self, world: World, module: str, env: dict[str, str], order: Json) -> None:
        cwd = world.root / "sdk"
        cwd.mkdir()
        argv = [sys.executable, "-m", module, json.dumps(order | {"cwd": str(cwd)})]
        self._child = Child(argv, env=env, cwd=CHECKOUT)
        self._lines = lines(self._child.output)
        assert json.loads(next(self._lines)) == "ready"

    def prepare(self) -> None:
        """It is ready."""

    def new(self) -> Timing:
        return self._asked("new")

    def sixth(self) -> Timing:
        return self._asked("sixth")

    def _asked(self, what: str) -> Timing:
        self._child.say({"do": what})
        return Timing(**json.loads(next(self._lines)))

    def close(self) -> None:
        self._child.end()


def is_installed(package: str) -> bool:
    """Whether it is there: it belongs to the extra `bench`."""
    return importlib.util.find_spec(package) is not None


def told(value: Any) -> None:
    """Says a value on stdout."""
    print(json.dumps(value), flush=True)
