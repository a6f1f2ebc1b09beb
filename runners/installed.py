"""Which version of a vendor's CLI is installed: asked of it once, and again when its file has changed."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable

from runners.errors import NotInstalledError
from runners.wire.process import Finished

_NUMBERS = r"\d+(?:\.\d+)+"


class InstalledVersion:
    """The version of the CLI at a path, as numbers; none before the first look.

    `ask` runs `--version` of a binary, `like` is what its answer looks like around the numbers, which stand at `{}`.
    """

    def __init__(self, ask: Callable[[str], Awaitable[Finished]], *, like: str, name: str, hint: str) -> None:
        self.numbers: tuple[int, ...] = ()
        self._ask = ask
        self._pattern = re.compile(like.format(f"({_NUMBERS})"))
        self._name = name
        self._hint = hint
        self._file: tuple[str, int] | None = None
        self._looking = asyncio.Lock()

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))

    async def look(self, binary: str) -> None:
        """Learns the version of this binary; raises NotInstalledError for one that does not answer like the CLI."""
        async with self._looking:
            found = (binary, os.stat(binary).st_mtime_ns)  # noqa: PTH116 a Path's would be forbidden in a coroutine
            if found == self._file:
                return
            printed = await self._ask(binary)
            match = self._pattern.search(printed.output.decode(errors="replace"))
            if printed.exit_code != 0 or match is None:
                raise NotInstalledError(
                    f"{binary} --version does not answer like {self._name}, and exits with {printed.exit_code}",
                    hint=self._hint,
                    exit_code=printed.exit_code,
                    stderr_tail=printed.stderr_tail or None,
                )
            self._file, self.numbers = found, numbers(match[1])


def is_version(text: str) -> bool:
    """Whether it is nothing but the numbers of a version."""
    return re.fullmatch(_NUMBERS, text) is not None


def numbers(version: str) -> tuple[int, ...]:
    """A version in a form that compares."""
    return tuple(map(int, version.split(".")))
