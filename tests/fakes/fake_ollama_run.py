"""A faithful `ollama run MODEL` on a terminal: its line editor, prompts, spinner, word wrap and multi-line messages.

Written from Ollama's source (cmd/interactive.go, cmd/cmd.go, readline/, progress/, as of August 2026); where the model
would be, a message is answered with itself. FAKE_OLLAMA_RUN is a JSON object: `log` is a file that each chat's messages
are written to, `answers` one with the pieces to answer some messages with, as a JSON object, `start` what goes wrong
before the first prompt. A message may say what goes wrong too, or what else is shown: see `_answer`.
"""

import fcntl
import json
import os
import signal
import struct
import sys
import termios
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ORDER = json.loads(os.environ.get("FAKE_OLLAMA_RUN", "{}"))
PROMPT, CONTINUATION = ">>> ", "... "
PLACEHOLDERS = {PROMPT: "Send a message (/? for help)", CONTINUATION: "Press Enter to send"}
GREY, BOLD, PLAIN, TO_END = "\x1b[38;5;245m", "\x1b[1m", "\x1b[0m", "\x1b[K"
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FLOOD = {"codes": "\x1b[31m\x1b[0m\x1b[2K", "spinner": "\x1b[1G⠋ \x1b[K\x1b[1G⠙ \x1b[K"}


def show(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(1, data) :]


def width_of(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def columns() -> int:
    return struct.unpack("hhhh", fcntl.ioctl(1, termios.TIOCGWINSZ, b"\0" * 8))[1] or 80


class Editor:
    """readline.Instance."""

    def __init__(self) -> None:
        self.pasting = self.use_alt = False
        self.pasted: list[str] = []
        self.buffered = b""

    def read(self) -> str:
        """A rune; what comes at once is buffered."""
        if not self.buffered:
            self.buffered = os.read(0, 4096)
            if not self.buffered:
                raise EOFError
        for size in range(1, 5):
            while len(self.buffered) < size:
                self.buffered += os.read(0, 4096)
            try:
                rune = self.buffered[:size].decode()
            except UnicodeDecodeError:
                continue
            self.buffered = self.buffered[size:]
            return rune
        self.buffered = self.buffered[1:]
        return "\ufffd"

    def readline(self) -> str:
        cooked = termios.tcgetattr(0)
        raw = termios.tcgetattr(0)
        raw[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR)
        raw[0] &= ~(termios.IGNCR | termios.ICRNL | termios.IXON)
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSANOW, raw)
        try:
            return self.edit()
        finally:
            termios.tcsetattr(0, termios.TCSANOW, cooked)

    def edit(self) -> str:
        own = CONTINUATION if self.use_alt else PROMPT
        show(CONTINUATION if self.pasting else own)
        line_width = columns() - len(own)
        text, at = "", 0
        draining = stop_draining = False
        while True:
            if stop_draining:
                draining = stop_draining = False
            if not text and (not self.pasting or self.use_alt):
                placeholder = PLACEHOLDERS[CONTINUATION if self.use_alt else PROMPT]
                show(f"{GREY}{placeholder}\x1b[{len(placeholder)}D{PLAIN}")
            rune = self.read()
            if self.buffered:
                draining = True
            elif draining:
                stop_draining = True
            if not text:
                show(TO_END)
            if rune == "\x1b":
                if self.read() == "[" and self.read() == "2":
                    self.pasting = {"00~": True, "01~": False}.get("".join(self.read() for _ in range(3)), self.pasting)
            elif rune == "\x03":
                self.pasted, self.use_alt = [], False
                raise KeyboardInterrupt
            elif rune == "\x04" and not text:
                raise EOFError
            elif rune == "\n" and not draining:
                self.pasted.append(text)
                text, at, self.use_alt = "", 0, True
                show("\n" + CONTINUATION)
            elif rune in "\r\n":
                whole = "\n".join([*self.pasted, text])
                self.pasted, self.use_alt = [], False
                show("\n")
                return whole
            elif rune == "\t" or rune >= " ":
                for char in " " * 8 if rune == "\t" else rune:
                    width = width_of(char)
                    at += width
                    wraps_before = text and at % line_width and at % line_width < (at - width) % line_width
                    if wraps_before:
                        at += 1
                    show(("\n" + CONTINUATION if wraps_before else "") + char)
                    if text and at % line_width == 0:
                        show("\n" + CONTINUATION)
                    text += char


class Spinner:
    """progress.Progress with one spinner, on stderr."""

    def __init__(self) -> None:
        self.frames = 0
        self.drawn = threading.Condition()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.spin)
        self.thread.start()

    def spin(self) -> None:
        while not self.done.wait(0.1):
            with self.drawn:
                self.render(SPINNER[self.frames % len(SPINNER)] + " ")
                self.frames += 1
                self.drawn.notify_all()

    def render(self, text: str) -> None:
        show(f"\x1b[?2026h\x1b[?25l\x1b[1G{text}{TO_END}\x1b[?25h\x1b[?2026l")

    def clear(self) -> None:
        show("\x1b[?25l")
        if not self.done.is_set():
            self.done.set()
            self.thread.join()
            self.render("")
            show("\x1b[2K\x1b[1G")
        show("\x1b[?25h")


class Display:
    """displayResponse and its state."""

    def __init__(self, word_wrap: bool) -> None:
        self.word_wrap = word_wrap
        self.length, self.word = 0, ""

    def show(self, content: str) -> None:
        width = columns()
        if not self.word_wrap:
            show(content)
            return
        for char in content:
            if self.length + 1 > width - 5:
                if width_of(self.word) > width - 10:
                    show(self.word + char)
                    self.length, self.word = 0, ""
                    continue
                back = width_of(self.word)
                show((f"\x1b[{back}D" if back else "") + TO_END + "\n" + self.word + char)
                self.length = width_of(self.word) + width_of(char)
                continue
            show(char)
            self.length += width_of(char)
            if width_of(char) >= 2 or char in " \t":
                self.word = ""
            elif char in "\r\n":
                self.length, self.word = 0, ""
            else:
                self.word += char


class CancelledError(Exception):
    pass


def cancel(*_: Any) -> None:
    raise CancelledError


def asked_by(message: str) -> str:
    """The last message of a conversation that came as one text."""
    for tag in ("</conversation_so_far>", "</instructions>"):
        _, found, rest = message.rpartition(tag + "\n\n")
        if found:
            return rest
    return message


def chat(message: str, flags: list[str]) -> str | None:
    """One turn; what it showed, or None where it was stopped."""
    spinner, display = Spinner(), Display("--nowordwrap" not in flags)
    try:
        signal.signal(signal.SIGINT, cancel)
        shown = ""
        for piece in _answer(asked_by(message), spinner, flags):
            spinner.clear()
            display.show(piece)
            shown += piece
    except CancelledError:
        return None
    else:
        show("\n\n")
        return shown
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        spinner.clear()


def _answer(asked: str, spinner: Spinner, flags: list[str]) -> Iterator[str]:
    if asked == "[hold]":
        yield "first word "
        while True:
            signal.pause()
    elif asked == "[spin]":
        with spinner.drawn:
            spinner.drawn.wait_for(lambda: spinner.frames > 2)
        yield from ["after ", "the spinner"]
    elif asked == "[think]":
        if "--hidethinking" not in flags:
            spinner.clear()
            show(f"{GREY}{BOLD}Thinking...\n{PLAIN}{GREY}hm\n{BOLD}...done thinking.\n\n{PLAIN}")
        yield "thought"
    elif asked == "[die]":
        yield "so far "
        os.kill(os.getpid(), signal.SIGKILL)
    elif asked == "[error]":
        spinner.clear()
        show("Error: model runner has unexpectedly stopped\n")
        sys.exit(1)
    elif asked in ("[silence]", "[spinning]"):
        if asked == "[silence]":
            spinner.clear()
        signal.pause()
    elif asked in ("[codes]", "[spinner]"):
        spinner.clear()
        flood(FLOOD[asked[1:-1]])
    elif asked == "[bytes]":
        yield "half \udce2\udc82 end \udcff"
    else:
        told = Path(ORDER.get("answers", "/nonexistent"))
        answers = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
        yield from answers.get(asked) or (asked[at : at + 7] for at in range(0, len(asked), 7))


def flood(codes: str) -> None:
    """10 MB that show nothing."""
    for _ in range(10 * 1024 * 1024 // (1024 * len(codes))):
        show(codes * 1024)


def main() -> int:
    if sys.argv[1:] == ["--version"]:
        print("ollama version is 0.30.1")
        return 0
    model, flags = sys.argv[2], sys.argv[3:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    match ORDER.get("start"):
        case "die":
            show(f"Error: pull model manifest: file does not exist: {model} not found\n")
            return 1
        case "hang":
            signal.pause()
        case "flood":
            flood(FLOOD["codes"])
    editor = Editor()
    show("\x1b[?2004h")
    message, multiline, messages = "", False, list[dict[str, str]]()
    while True:
        try:
            line = editor.readline()
        except EOFError:
            show("\n\x1b[?2004l")
            return 0
        except KeyboardInterrupt:
            show("\nUse Ctrl + d or /bye to exit.\n")
            message = ""
            continue
        if multiline:
            ended = line.endswith('"""')
            message += line.removesuffix('"""') + ("" if ended else "\n")
            editor.use_alt = not ended
            if not ended:
                continue
            multiline = False
        elif line.startswith('"""'):
            line = line.removeprefix('"""')
            ended = line.endswith('"""')
            message += line.removesuffix('"""') + ("" if ended else "\n")
            multiline = editor.use_alt = not ended
        elif editor.pasting:
            message += line + "\n"
            continue
        elif line.startswith(("/exit", "/bye")):
            show("\x1b[?2004l")
            return 0
        elif line.startswith("/clear"):
            messages = []
            show("Cleared session context\n")
            continue
        elif line.startswith("/"):
            show(f"Unknown command '{line.split()[0]}'. Type /? for help\n")
            continue
        else:
            message += line
        if not message or multiline:
            continue
        messages.append({"role": "user", "content": message})
        if "log" in ORDER:
            with Path(ORDER["log"]).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"model": model, "messages": messages}) + "\n")
        answer = chat(message, flags)
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        message = ""


if __name__ == "__main__":
    sys.exit(main())
