"""A `claude` that replays a recorded turn, and misbehaves on order. Run as a program, with the standard library alone.

`FAKE_CLI` is a JSON object: `transcript` is a recording that holds an interrupted turn and then a whole one; `log` is
where every line from stdin is kept, as the proof of what arrived; `fault` is one of the names below, and `megabytes`
how big it is. The answer to a message is its own text, in the events of the recording, or with `digests` the digest of
the whole conversation that it was told; what ends with `[hold]` is answered with a first word until it is interrupted.
`afterwards` are events that come right behind each answer, in one piece with its end.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Event = dict[str, Any]
_PIECE = 7
ORDER: Event = json.loads(os.environ.get("FAKE_CLI", "{}"))
FAULT = ORDER.get("fault", "")
_MEGABYTE = 1024 * 1024


def emit(*events: Event) -> None:
    sys.stdout.write("".join(json.dumps(event) + "\n" for event in events))
    sys.stdout.flush()


def digest(system: str, messages: Iterable[tuple[str, str]]) -> str:
    """A conversation in a form to answer with: it is equal where every role and text is, in the same order.

    Messages of one role in a row are one.
    """
    told: list[list[str]] = []
    for role, text in messages:
        if told and told[-1][0] == role:
            told[-1][1] += text
        else:
            told.append([role, text])
    return hashlib.sha256(json.dumps([system, told]).encode()).hexdigest()


def hang() -> None:
    while True:
        time.sleep(3600)


class Recording:
    """The events of a whole turn, and those that follow an interrupt."""

    def __init__(self, path: str) -> None:
        events = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
        ends = [index for index, event in enumerate(events) if event["type"] == "result"]
        acknowledged = next(i for i, event in enumerate(events) if i > 1 and event["type"] == "control_response")
        self.interrupted = events[acknowledged : ends[0] + 1]
        self.turn = events[ends[0] + 1 : ends[1] + 1]
        begun = next(event["event"]["message"] for event in self.turn if event.get("event", {}).get("message"))
        self.spent_usd = 0.0
        for event in self.interrupted:
            if event["type"] == "assistant":
                event["message"] |= {"id": begun["id"], "content": [{"type": "text", "text": "[hold]"}]}

    def answer(self, text: str) -> list[Event]:
        """The whole turn with another text in it."""
        found = []
        for recorded in self.turn:
            event = json.loads(json.dumps(recorded))
            inner = event.get("event", {})
            if inner.get("type") == "content_block_delta":
                for start in range(0, len(text), _PIECE):
                    inner["delta"]["text"] = text[start : start + _PIECE]
                    found.append(json.loads(json.dumps(event)))
                continue
            if event["type"] == "assistant":
                event["message"]["content"] = [{"type": "text", "text": text}]
            elif event["type"] == "result":
                # The CLI's sum is of all its turns.
                self.spent_usd += event["total_cost_usd"]
                event |= {"result": text, "total_cost_usd": self.spent_usd}
            found.append(event)
        return found


def text_of(event: Event) -> str:
    content = event["message"]["content"]
    if isinstance(content, str):
        return content
    return "".join(b.get("text") or b.get("source", {}).get("data", "") for b in content if b.get("text") != "\n")


def is_delta(event: Event) -> bool:
    return bool(event.get("event", {}).get("type") == "content_block_delta")


def misbehave_before(fault: str) -> None:
    match fault:
        case "hang":
            hang()
        case "exit_before":
            sys.stderr.write("fatal: the fake is broken\n")
            sys.exit(3)
        case "stderr_flood":
            for _ in range(ORDER.get("megabytes", 50)):
                sys.stderr.write("x" * _MEGABYTE)
            sys.stderr.write("the last words\n")
            sys.stderr.flush()
        case "grandchild":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], stdin=subprocess.DEVNULL)
        case "grandchild_of_its_own":
            leave_the_session(held=())
        case "grandchild_with_stdout":
            leave_the_session(held=(1,))
        case "grandchild_of_its_own_and_ignore_term":
            leave_the_session(held=())
        case "exit_zero_before":
            sys.exit(0)
        case "garbage":
            sys.stdout.buffer.write(b'not json\n\xff\xfe\n[1, 2]\n"text"\n\n{"type": "novelty"}\n{}\n')
            sys.stdout.buffer.flush()
        case "huge_line":
            for _ in range(ORDER.get("megabytes", 65)):
                sys.stdout.write("x" * _MEGABYTE)
            sys.stdout.flush()
            hang()


def leave_the_session(held: tuple[int, ...]) -> None:
    """Starts a process that nobody finds by its parent, group or session; of our pipes it keeps those that are held."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in {0, 1, 2}.difference(held):
        os.dup2(null, descriptor)
    hang()


def misbehave_behind_a_delta(fault: str) -> None:
    match fault:
        case "silent" | "ignore_term" | "grandchild_of_its_own_and_ignore_term":
            hang()
        case "exit_mid":
            sys.stderr.write("fatal: in the middle\n")
            sys.exit(3)
        case "exit_zero":
            sys.exit(0)
        case "half_line":
            sys.stdout.write('{"type":"stream_event","event":{"type":"content_bl')
            sys.stdout.flush()
            sys.exit(0)


def main() -> None:
    if "--version" in sys.argv:
        sys.stdout.write(ORDER.get("version", "2.1.329 (Claude Code)") + "\n")
        return
    if sys.argv[1:3] == ["auth", "status"]:
        sys.stdout.write(json.dumps({"loggedIn": ORDER.get("logged_in", True), "authMethod": "api_key"}))
        sys.exit(0 if ORDER.get("logged_in", True) else 1)
    if FAULT in ("ignore_term", "stay", "grandchild_of_its_own_and_ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if FAULT == "deaf":
        hang()
    recording = Recording(ORDER["transcript"])
    system = ""
    told: list[tuple[str, str]] = []
    for line in sys.stdin:
        if "log" in ORDER:
            with Path(ORDER["log"]).open("a", encoding="utf-8") as log:
                log.write(line)
        event = json.loads(line)
        if event["type"] == "control_request":
            system = "".join(event["request"].get("systemPrompt", [system]))
            acknowledge(recording, event)
            continue
        told.append((event["type"], text_of(event)))
        if event.get("shouldQuery") is False:
            emit({**recording.turn[-1], "num_turns": 0, "result": "", "stop_reason": None})
        elif event["type"] == "user":
            text = digest(system, told) if ORDER.get("digests") else text_of(event)
            answer(recording, text, is_held=text_of(event).endswith("[hold]"))
            told.append(("assistant", text))


def acknowledge(recording: Recording, request: Event) -> None:
    if request["request"]["subtype"] != "interrupt":
        emit({"type": "control_response", "response": {"subtype": "success", "request_id": request["request_id"]}})
        if FAULT == "deaf_to_turns":
            hang()
        return
    for event in recording.interrupted:
        if event["type"] == "control_response":
            event["response"]["request_id"] = request["request_id"]
        emit(event)


def answer(recording: Recording, text: str, *, is_held: bool) -> None:
    misbehave_before(FAULT)
    for event in recording.answer(text):
        emit(event, *(ORDER.get("afterwards", []) if event["type"] == "result" else []))
        if is_delta(event):
            misbehave_behind_a_delta(FAULT)
            if is_held:
                return
    if FAULT == "exit_after":
        sys.exit(5)
    if FAULT == "exit_between":
        signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
    if FAULT == "stay":
        hang()


if __name__ == "__main__":
    main()
