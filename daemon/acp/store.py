"""Conversations on disk: one file each, in a private directory, written anew behind every turn.

A file is lines of JSON: first what a list shows of the conversation, then its entries (see `content`). So a list reads
a line of each. Knows no protocol.
"""

import json
import os
import re
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.errors import DaemonError
from daemon.output import warn
from daemon.paths import private_directory

_KEPT = 100
_ID = re.compile(r"[0-9a-f]{32}")


class DamagedError(DaemonError):
    """A file does not hold what was written into it."""


@dataclass
class Conversation:
    """What was said in a session, and how it goes on. One that has no title has not begun.

    `model` and `effort` are None where the daemon and the runner are to say.
    """

    cwd: str
    model: str | None = None
    effort: str | None = None
    title: str | None = None
    cost_usd: float = 0.0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    updated_at: str = ""
    entries: list[dict[str, Any]] = field(default_factory=list)


class Store:
    """The newest hundred conversations, and as many that have not begun, under the state directory."""

    def __init__(self, state_directory: Path) -> None:
        self._state_directory = state_directory

    def save(self, conversation: Conversation) -> None:
        """Writes it down, whole or not at all; DaemonError when that cannot be done."""
        directory = self._directory()
        conversation.updated_at = datetime.now(UTC).isoformat()
        head = asdict(conversation)
        lines = [json.dumps(line) + "\n" for line in (head, *head.pop("entries"))]
        path = directory / f"{conversation.id}.jsonl"
        partial = path.with_suffix(".partial")
        try:
            is_new = not path.exists()
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.writelines(lines)
            partial.replace(path)
        except OSError as error:
            raise DaemonError(f"{path} cannot be written: {error.strerror}") from error
        if is_new:
            self._forget_the_oldest()

    def load(self, session_id: str) -> Conversation | None:
        """The conversation of a session, or None where there is none; DamagedError when it cannot be read."""
        path = self._directory() / f"{session_id}.jsonl"
        if not _ID.fullmatch(session_id) or not path.exists():
            return None
        try:
            head, *entries = path.read_text(encoding="utf-8").splitlines()
            return Conversation(**json.loads(head) | {"entries": [json.loads(entry) for entry in entries]})
        except (OSError, ValueError, TypeError) as error:
            raise DamagedError(f"the conversation in {path} is damaged: {error}") from error

    def begun(self) -> list[Conversation]:
        """Those that have begun, without their entries, newest first. Of a damaged one stderr says that it is."""
        return [conversation for _, conversation in self._heads() if conversation.title is not None]

    def _heads(self) -> list[tuple[Path, Conversation]]:
        heads = []
        for path in self._directory().glob("*.jsonl"):
            try:
                with path.open(encoding="utf-8") as file:
                    heads.append((path, Conversation(**json.loads(file.readline()))))
            except FileNotFoundError:
                continue  # another process has just forgotten it
            except (OSError, ValueError, TypeError) as error:
                warn(f"the conversation in {path} is damaged: {error}")
        return sorted(heads, key=lambda head: head[1].updated_at, reverse=True)

    def _forget_the_oldest(self) -> None:
        heads = self._heads()
        for kind in (True, False):
            _forget([path for path, head in heads if (head.title is None) is kind][_KEPT:])

    def _directory(self) -> Path:
        return private_directory(private_directory(self._state_directory) / "acp")


def _forget(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
