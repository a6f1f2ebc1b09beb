"""A CLI that nobody knows: it answers one prompt from stdin with JSON lines of its own, and misbehaves on order.

`FAKE_CLI` in its environment is a JSON object: `log`, a file for what it was given, and `fault`. It answers with the
last message of its prompt, cut into words; the prompt `[hold]` it begins to answer, and never ends.
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

ORDER = json.loads(os.environ.get("FAKE_CLI", "{}"))
FAULT = ORDER.get("fault", "")
EXIT_CODE = 7


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def emit(**event: Any) -> None:
    write(json.dumps(event).encode() + b"\n")


def last_words(code: int) -> None:
    sys.stderr.write("these are my last words\n")
    sys.exit(code)


def prompt_and_log() -> str:
    """All of stdin; notes what the CLI was given."""
    prompt = sys.stdin.buffer.read().decode()
    system = next((arg.partition("=")[2] for arg in sys.argv if arg.startswith("--system-file=")), None)
    given = {"argv": sys.argv[1:], "prompt": prompt}
    if system is not None:
        given["system"] = Path(system).read_text(encoding="utf-8")
    if "log" in ORDER:
        with Path(ORDER["log"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(given) + "\n")
    return prompt


def before_it_reads() -> None:
    match FAULT:
        case "talks_first":
            for number in range(3_000):
                emit(type="news", number=number, padding="x" * 1_000)
        case "deaf":
            os.close(0)
            emit(type="piece", text="I know")
            emit(type="end")
            sys.exit(0)
        case "dies_at_once":
            last_words(EXIT_CODE)
        case "silent":
            time.sleep(3600)


def before_it_answers() -> None:
    match FAULT:
        case "garbage":
            write(b'not json\n\xff\xfe\n[1, 2]\n"text"\n\n{"type": "novelty"}\n{}\n{"type": "piece"}\n')
        case "fails":
            emit(type="failure", message=ORDER["message"], status=ORDER.get("status"))
            last_words(ORDER.get("exit_code", 1))
        case "wrong_text":
            emit(type="piece", text={"not": "a text"})
        case "wrong_count":
            emit(type="end", tokens={"in": "many", "out": 1})


def before_it_ends() -> None:
    match FAULT:
        case "exits_zero":
            sys.exit(0)
        case "exits_mid":
            last_words(EXIT_CODE)
        case "hangs":
            time.sleep(3600)
        case "half_line":
            write(b'{"type": "piece", "te')
            sys.exit(0)
        case "huge_line":
            write(b"x" * (65 * 1024 * 1024) + b"\n")
            time.sleep(3600)
        case "says_other":
            emit(type="whole", text="something else")
            emit(type="end")
            sys.exit(0)


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print("fake 1.2.3")
        sys.exit(ORDER.get("health", 0))
    if sys.argv[1:] == ["login", "status"]:
        sys.exit(ORDER.get("login", 0))
    before_it_reads()
    prompt = prompt_and_log()
    before_it_answers()
    model = next((arg.partition("=")[2] for arg in sys.argv if arg.startswith("--model=")), "none")
    emit(type="hello", model=f"{model}-1")
    emit(type="thought", text="hm")
    text = prompt
    for before_it in ("</instructions>\n\n", "</conversation_so_far>\n\n"):
        text = text.rpartition(before_it)[2]
    shown = ""
    for piece in re.findall(r"\S+\s*|\s+", text):
        emit(type="piece", text=piece)
        shown += piece
        if text == "[hold]":
            time.sleep(3600)
        if FAULT and len(shown) >= len(text) // 2:
            before_it_ends()
    emit(type="whole", text=text)
    end = {"type": "end", "why": "finished", "tokens": {"in": 11, "cached": 3, "out": 7}}
    write(json.dumps(end).encode() + (b"" if FAULT == "no_line_feed" else b"\n"))
    if FAULT == "exits_after":
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    main()
