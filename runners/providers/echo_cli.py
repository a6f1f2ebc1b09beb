"""The program behind the `echo` runner: a model CLI that answers with what it was sent.

It is started by path, with the standard library alone, and imports nothing of ours: to the daemon it is one more
vendor's CLI. One JSON object a line, told apart by `type`. In: `start` with the `system` prompt, `message` for each
message, `turn` with the `model` that is to answer, `interrupt` while it does. Out: `ready`, and for a turn `begin`,
`delta`*, `usage`, `end`.

The model `echo` answers with the last message's text, word by word; `request` with everything it was sent, as JSON.
"""

import json
import os
import re
import select
import sys
from typing import Any

_CHUNK_CHARACTERS = 64 * 1024


def _emit(**event: Any) -> None:
    # ASCII escapes carry every character, lone surrogates included.
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _text(message: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in message["content"])


def _pieces(answer: str) -> list[str]:
    words = re.findall(r"\S+\s*|\s+", answer)
    return [word[at : at + _CHUNK_CHARACTERS] for word in words for at in range(0, len(word), _CHUNK_CHARACTERS)]


class _Input:
    """Lines from stdin, with a look ahead that does not wait."""

    def __init__(self) -> None:
        self._buffer = b""
        self._ended = False

    def has_line(self) -> bool:
        """Whether a line, or the end, has come."""
        while b"\n" not in self._buffer and not self._ended and select.select([0], [], [], 0)[0]:
            self._read()
        return b"\n" in self._buffer or self._ended

    def line(self) -> bytes:
        """The next line; empty at the end."""
        while b"\n" not in self._buffer and not self._ended:
            self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _read(self) -> None:
        data = os.read(0, 16 * 1024 * 1024)
        self._buffer += data
        self._ended = not data


def _answer(lines: _Input, model: str, start: dict[str, Any], messages: list[dict[str, Any]], turn: int) -> str:
    told = {"system": start["system"], "messages": messages}
    answer = json.dumps(told, ensure_ascii=False, indent=1) if model == "request" else _text(messages[-1])
    _emit(type="begin", id=f"echo-{turn}", model=model)
    reason = "end"
    for piece in _pieces(answer):
        if lines.has_line() and json.loads(lines.line() or b'{"type": "interrupt"}')["type"] == "interrupt":
            reason = "interrupted"
            break
        _emit(type="delta", text=piece)
    read = len(json.dumps(told)) // 4
    _emit(type="usage", input_tokens=read, output_tokens=len(answer) // 4)
    _emit(type="end", reason=reason)
    return answer


def main() -> None:
    """Serves one conversation until stdin ends."""
    start: dict[str, Any] = {}
    messages: list[dict[str, Any]] = []
    turn = 0
    lines = _Input()
    while line := lines.line():
        event = json.loads(line)
        match event["type"]:
            case "start":
                start = event
                _emit(type="ready")
            case "message":
                messages.append(event["message"])
            case "turn":
                turn += 1
                answer = _answer(lines, event["model"], start, messages, turn)
                messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})


if __name__ == "__main__":
    main()
