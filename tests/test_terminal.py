"""CLIs on a terminal: README's two, and those that go wrong."""

import asyncio
import errno
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from daemon.config import load_config
from runners.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    NotInstalledError,
    ProcessExitedError,
    ProtocolError,
    RunnerError,
    SpawnFailedError,
    UnsupportedError,
    VendorError,
)
from runners.kinds import provider_class
from runners.messages import ChatRequest
from runners.provider import LlmProvider, Session
from runners.providers.terminal.provider import TerminalProvider
from runners.providers.terminal.settings import TerminalSettings
from runners.stream import ChatChunk, Done, Failed, Text, fold
from runners.testing import request
from tests.readme import blocks
from tests.subjects.terminal import FakeOllamaRun, Python
from tests.world import World

pytestmark = pytest.mark.usefixtures("no_leaks")


async def said(session: Session, provider: LlmProvider, text: str | ChatRequest) -> str:
    """The answer to a text, in a session that goes on."""
    asked = request(text) if isinstance(text, str) else text
    if session.turns == 0:
        await session.prepare(provider.session_options(asked))
    return (await fold(session.turn(asked.conversation, provider.sampling(asked)))).content


async def failure(provider: LlmProvider, text: str) -> tuple[str, RunnerError]:
    """What was sent of an answer that failed, and how it did."""
    chunks: list[ChatChunk] = []
    try:
        async with provider.complete_stream(request(text)) as stream:
            chunks += [chunk async for chunk in stream]
    except RunnerError as error:
        return "", error
    assert isinstance(chunks[-1], Failed)
    return "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Text)), chunks[-1].error


def scripted(world: World, program: str, **declared: Any) -> TerminalProvider:
    """A CLI that is this Python program, on a terminal."""
    binary = world.program("cli", "import os, signal, sys, termios, time\n" + program)
    env = {"HOME": str(world.home)}
    entry = {"agent": True, "binary": str(binary), "version_args": [], "prompt": "> ", "env": env, **declared}
    return TerminalProvider("cli", TerminalSettings.model_validate(entry), state_dir=world.state / "cli")


ECHOES = "while True: print('you said', input('> '))"


async def test_readmes_examples_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeOllamaRun(world)
    (world.root / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{world.root}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(world.home))
    written = [block for block in blocks() if "kind: terminal" in block]
    assert len(written) == 2
    texts = {"ollama-repl": ("Hello\nyou", "Hello\nyou"), "python": ("for i in (1, 2):\n    print(i * 21)", "21\n42")}
    for block in written:
        for name, settings in load_config(world.config(block)).runners.items():
            provider = provider_class("terminal")(name, settings, state_dir=world.state / name)
            text, answer = texts.pop(name)
            assert (await provider.complete(request(text))).content == answer
    assert not texts


async def test_a_follow_up_is_typed_to_the_process_that_holds_the_conversation(world: World) -> None:
    subject = FakeOllamaRun(world)
    session = await subject.provider.open()
    asked = ChatRequest.model_validate(
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]}
    )
    assert await said(session, subject.provider, asked) == "one"
    assert await said(session, subject.provider, "two\n\nlines") == "two\n\nlines"
    assert session.holds_conversation
    await session.aclose()
    assert subject.chats()[-1] == [
        {"role": "user", "content": "<instructions>\nBe brief.\n</instructions>\n\none"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "two\n\nlines"},
    ]


async def test_what_a_person_would_not_take_for_the_answer_is_none_of_it(world: World) -> None:
    subject = FakeOllamaRun(world)
    session = await subject.provider.open()
    for text, answer in {
        "[spin]": "after the spinner",
        "[bytes]": "half \ufffd end \ufffd",
        "[think]": "thought",
        ">>> 1 + 1\n2\n>>> ": ">>> 1 + 1\n2\n>>>",
        "/bye": "/bye",
        "x" * 20_000: "x" * 20_000,
        "\n".join(map(str, range(120))): "\n".join(map(str, range(120))),
    }.items():
        assert await said(session, subject.provider, text) == answer
    assert [chat[-1]["content"] for chat in subject.chats()][-3:-1] == ["/bye", "x" * 20_000]
    await session.aclose()


async def test_in_a_narrow_terminal_the_message_is_exact_and_the_answer_as_it_was_wrapped(world: World) -> None:
    subject = FakeOllamaRun(world)
    provider = subject.made(size={"columns": 40, "rows": 5}, args=["run", "{model}"])
    session = await provider.open()
    text = "the quick brown fox 日本語 jumps ... over the lazy dog and on " * 20
    for message in (text, text.replace("fox ", "fox\n")):
        answer = await said(session, provider, message)
        assert subject.chats()[-1][-1]["content"] == message
        assert answer.split() == message.split()
        assert max(map(len, answer.split("\n"))) <= 40
    await session.aclose()


async def test_a_message_can_be_pasted(world: World) -> None:
    subject = FakeOllamaRun(world)
    provider = subject.made(bracketed_paste=True, multiline=None)
    for text in ("one", "one\n/bye\n  two\tand\n\nthree", "x" * 3000):
        await provider.complete(request(text))
        assert subject.chats()[-1][-1]["content"] == text.replace("\t", " " * 8)


async def test_an_answer_that_is_sent_whole_may_take_longer_than_its_first_chunk(world: World) -> None:
    program = "input('> ')\nfor _ in range(4): print('more', flush=True); time.sleep(1.5)\ninput('> ')"
    provider = scripted(world, program, streams="answer", timeouts={"first_chunk_s": 4})
    assert (await provider.complete(request("go"))).content == "more\nmore\nmore\nmore"


async def test_a_message_that_the_cli_would_misread_costs_no_session(world: World) -> None:
    subject = FakeOllamaRun(world)
    for text, kind in {"a \x1b[201~\r/bye": InvalidRequestError, 'def f():\n    """doc"""': UnsupportedError}.items():
        _, error = await failure(subject.provider, text)
        assert type(error) is kind
    assert not subject.log.exists()


async def test_an_interrupt_reaches_the_cli_and_one_that_does_not_stop_is_stopped(world: World) -> None:
    stubborn = scripted(
        world, "signal.signal(2, signal.SIG_IGN)\ninput('> '); print('first word ', flush=True); time.sleep(3600)"
    )
    for provider, text in ((FakeOllamaRun(world).provider, "[hold]"), (stubborn, "go")):
        session = await provider.open()
        asked = request(text)
        await session.prepare(provider.session_options(asked))
        async with session.turn(asked.conversation, provider.sampling(asked)) as stream:
            while not isinstance(await anext(stream), Text):
                pass
            await session.interrupt()
            *_, last = [chunk async for chunk in stream]
        assert isinstance(last, Done)
        assert last.stop_reason == "cancelled"
        assert session.state == "dead"
        await session.aclose()


async def test_a_cli_that_dies_before_its_prompt_says_why(world: World) -> None:
    _, error = await failure(FakeOllamaRun(world, start="die").provider, "hello")
    assert type(error) is ModelNotFoundError
    assert error.message == "Error: pull model manifest: file does not exist: llama3.2 not found"
    assert error.exit_code == 1


async def test_a_cli_that_dies_while_nobody_wants_it_is_dead(world: World) -> None:
    provider = scripted(world, "print('> ', end='', flush=True); time.sleep(3600)")
    session = await provider.open()
    gone = asyncio.Event()
    session.when_dead = gone.set
    session.cli.kill()
    await gone.wait()
    assert session.state == "dead"
    with pytest.raises(ProcessExitedError, match="SIGKILL"):
        await session.prepare(provider.session_options(request("x")))
    await session.aclose()


async def test_a_cli_that_dies_in_its_answer_says_how(world: World) -> None:
    subject = FakeOllamaRun(world)
    text, error = await failure(subject.provider, "[die]")
    assert text == "so far"
    assert type(error) is ProcessExitedError
    assert "SIGKILL" in error.message
    assert error.stderr_tail is not None
    assert "so far" in error.stderr_tail
    _, error = await failure(subject.provider, "[error]")
    assert type(error) is VendorError


async def test_a_cli_that_hangs_meets_its_deadline(world: World) -> None:
    provider = FakeOllamaRun(world, start="hang").made(timeouts={"spawn_s": 1})
    _, error = await failure(provider, "hello")
    assert isinstance(error, DeadlineExceededError)
    assert (error.deadline, error.hint) == ("spawn_s", "does `prompt` match what its terminal shows at last?")
    for text in ("[silence]", "[spinning]"):
        _, error = await failure(FakeOllamaRun(world).made(timeouts={"first_chunk_s": 2}), text)
        assert isinstance(error, DeadlineExceededError)
        assert error.deadline == "first_chunk_s"


async def test_a_cli_that_does_not_read_meets_a_deadline(world: World) -> None:
    deaf = "import tty; tty.setraw(0); print('> ', end='', flush=True); time.sleep(3600)"
    _, error = await failure(scripted(world, deaf, timeouts={"first_chunk_s": 2}), "x" * 500_000)
    assert isinstance(error, DeadlineExceededError)
    assert error.deadline == "first_chunk_s"


@pytest.mark.parametrize(("order", "text"), [("flood", "hello"), (None, "[spinner]")])
async def test_ten_megabytes_of_escape_codes_are_an_error_that_says_so(
    world: World, order: str | None, text: str
) -> None:
    _, error = await failure(FakeOllamaRun(world, start=order).provider, text)
    assert type(error) is ProtocolError
    assert error.message == "the CLI wrote 2 MiB of control sequences and redrawn text, and nothing new"


@pytest.mark.parametrize("keys", [r"\x1b[4h\r" + "y" * 9999, r"\x1b[@", r"\x1b[P\x1b[@"])
async def test_a_row_that_is_moved_with_every_key_holds_nobody_up(world: World, keys: str) -> None:
    program = f"input('> '); print('x' * 9999 + '\\r', end='')\nwhile True: print('{keys}', end='')"
    began = time.process_time()
    _, error = await failure(scripted(world, program), "go")
    assert type(error) is ProtocolError
    assert "redrawn" in error.message
    assert time.process_time() - began < 10


async def test_a_line_that_fills_the_screen_costs_no_more_to_look_at_for_a_prompt(world: World) -> None:
    program = "input('x> '); print('y' * 200_000); input('x> ')"
    began = time.process_time()
    assert len((await scripted(world, program, prompt=r"\w+> ").complete(request("go"))).content) == 200_000
    assert time.process_time() - began < 10


@pytest.mark.parametrize("model", ["-x", "a\0b"])
async def test_a_model_that_no_argument_can_be_is_not_found(world: World, model: str) -> None:
    provider = scripted(world, ECHOES, args=["{model}"], model="small").with_model(model)
    _, error = await failure(provider, "hello")
    assert type(error) is ModelNotFoundError


async def test_an_answer_that_is_drawn_elsewhere_is_not_an_empty_one(world: World) -> None:
    program = "print('a\\nb\\nc'); input('> ')\nprint('\\x1b[2J\\x1b[HThe answer\\n> ', end='', flush=True); input()"
    _, error = await failure(scripted(world, program), "hello")
    assert type(error) is ProtocolError
    assert "written over" in error.message


@pytest.mark.parametrize("broken", ["termios.tcsetwinsize", "fdspawn"])
async def test_a_terminal_that_cannot_be_made_whole_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(f"runners.wire.terminal.{broken}", fails)
    _, error = await failure(scripted(world, ECHOES), "hello")
    assert type(error) is SpawnFailedError
    assert "Too many open files" in error.message


async def test_what_is_no_program_is_not_installed(world: World) -> None:
    provider = scripted(world, "")
    Path(provider.binary()).write_bytes(b"\x7fELF nonsense")
    _, error = await failure(provider, "hello")
    assert type(error) is NotInstalledError
    assert error.stderr_tail is not None
    assert "cannot be started" in error.stderr_tail


async def test_it_has_a_terminal_of_its_own_that_controls_it(world: World) -> None:
    told = world.root / "told"
    program = (
        "is_ours = os.tcgetpgrp(0) == os.getpgrp() and os.open('/dev/tty', os.O_RDWR) > 2\n"
        "told = os.isatty(0), os.isatty(2), is_ours, *os.get_terminal_size(), os.environ['TERM']\n"
        f"print(*told, file=open({str(told)!r}, 'w'), flush=True)\n"
    )
    provider = scripted(world, program + ECHOES, size={"columns": 123, "rows": 7})
    session = await provider.open()
    assert await said(session, provider, "hello") == "you said hello"
    await session.aclose()
    assert told.read_text(encoding="utf-8") == "True True True 123 7 dumb\n"


async def test_what_python_ignores_the_cli_does_not(world: World) -> None:
    script = "printf '> '; read text; kill -PIPE $$; echo $text; printf '> '; read text"
    provider = scripted(world, "", binary="/bin/sh", args=["-c", script])
    _, error = await failure(provider, "still here")
    assert "SIGPIPE" in error.message


async def test_an_answer_can_end_by_silence(world: World) -> None:
    program = (
        "while True:\n"
        "    text = input(); time.sleep(2)\n"
        "    for word in text.split(): print(word, end=' ', flush=True)\n"
        "    print()"
    )
    provider = scripted(world, program, prompt=None, silence_end_s=1.5)
    session = await provider.open()
    assert await said(session, provider, "one two") == "one two"
    assert await said(session, provider, "three") == "three"
    await session.aclose()


async def test_what_is_typed_may_be_hidden(world: World) -> None:
    program = (
        "modes = termios.tcgetattr(0); modes[3] &= ~termios.ECHO; termios.tcsetattr(0, termios.TCSANOW, modes)\n"
        "while True:\n    print('> ', end='', flush=True); print('\\nyou said', sys.stdin.readline())"
    )
    provider = scripted(world, program, echo=False)
    assert (await provider.complete(request("hello"))).content == "you said hello"
    _, error = await failure(scripted(world, program, timeouts={"silence_s": 1}), "hello")
    assert isinstance(error, DeadlineExceededError)
    assert error.hint == "it does not show what is typed: is it one for `echo: false`?"
    _, error = await failure(scripted(world, program, timeouts={"silence_s": 1}, size={"columns": 20}), "hello " * 3)
    assert error.hint == "it does not show all of a line that is longer than those of its terminal (`size`)"


@pytest.mark.parametrize(
    "text", ["\ufeffhello", "\u0301a", "e" + "\u0301" * 100, "\U0001f469\u200d\U0001f4bb \u2764\ufe0f"]
)
async def test_what_has_no_column_of_its_own_needs_none_to_be_seen(world: World, text: str) -> None:
    told = world.root / "told"
    program = f"open({str(told)!r}, 'w', encoding='utf-8').write(input('> '))\ninput('> ')"
    await scripted(world, program).complete(request(text))
    assert told.read_text(encoding="utf-8") == text


async def test_a_cli_that_shows_other_things_than_what_is_typed_is_an_error(world: World) -> None:
    program = "import tty; tty.setcbreak(0); print('> ', end='', flush=True); os.read(0, 1)\n"
    provider = scripted(world, program + "while True: print('and another thing')")
    _, error = await failure(provider, "hello")
    assert type(error) is ProtocolError
    assert "while it is typed" in error.message


async def test_another_encoding_is_read_and_typed(world: World) -> None:
    program = "while True:\n    os.write(1, b'> '); os.write(1, b'gr\\xfc\\xdfe ' + os.read(0, 99))"
    provider = scripted(world, program, encoding="latin-1")
    assert (await provider.complete(request("an J\xfcrgen"))).content == "gr\xfc\xdfe an J\xfcrgen"


async def test_lines_that_the_system_edits_have_a_limit(world: World) -> None:
    _, error = await failure(scripted(world, ECHOES), "x" * 5000)
    assert type(error) is UnsupportedError
    assert "too long" in error.message


async def test_a_line_that_the_cli_takes_for_the_whole_is_said(world: World) -> None:
    provider = scripted(world, ECHOES, multiline={}, continuation=r"\.\. ")
    _, error = await failure(provider, "one\ntwo")
    assert type(error) is ProtocolError
    assert error.message == "the CLI took line 1 of the message for the whole of it (`multiline`)"


async def test_a_message_that_the_cli_wants_more_of_is_closed(world: World) -> None:
    session = await (python := Python(world, "python", Path(sys.executable)).provider).open()
    assert await said(session, python, "for i in range(3): print(i)") == "0\n1\n2"
    assert await said(session, python, "print('... ', end=''); import time; time.sleep(1); print('so')") == "... so"
    await session.aclose()
    ollama = FakeOllamaRun(world).made(commands=None, unsafe=[])
    assert (await ollama.complete(request('"""hello'))).content == "hello"


@pytest.mark.parametrize(
    ("multiline", "text"),
    [(None, "for i in range(3): print(i)"), ({"close": "\n"}, "(1 +"), ({"close": "\n"}, "if 1:\n    f(")],
)
async def test_a_message_that_nothing_closes_is_said(world: World, multiline: dict[str, str] | None, text: str) -> None:
    _, error = await failure(Python(world, "python", Path(sys.executable), multiline=multiline).provider, text)
    assert type(error) is ProtocolError
    assert error.message == "the CLI wants another line behind the last one of the message (`multiline`)"


async def test_a_cli_that_reads_lines_is_asked_for_more_only_before_it_answers(world: World) -> None:
    program = (
        "while True:\n    text = input('> ')\n"
        "    while text.endswith(';'): text = text[:-1] + input('.. ')\n"
        "    print('you said\\n.. ', end='', flush=True); time.sleep(1); print(text)"
    )
    provider = scripted(world, program, multiline={"close": "\nend"}, continuation=r"\.\. ")
    session = await provider.open()
    assert await said(session, provider, "one;") == "you said\n.. oneend"
    assert await said(session, provider, "one") == "you said\n.. one"
    await session.aclose()


async def test_an_empty_line_in_a_message_is_waited_for_as_every_other(world: World) -> None:
    session = await (python := Python(world, "python", Path(sys.executable)).provider).open()
    assert await said(session, python, "if 1:\n  print('''a\n\n\nb''')") == "a\n\n\nb"
    await session.aclose()
    _, error = await failure(python, "def f(a):\n    return a+1\n\nprint(f(3))")
    assert type(error) is ProtocolError
    assert error.message == "the CLI took line 3 of the message for the whole of it (`multiline`)"
    assert error.hint == "send what stands behind that line as a message of its own, or all in one line"


async def test_pastes_are_typed_only_where_they_are_taken(world: World) -> None:
    _, error = await failure(scripted(world, ECHOES, bracketed_paste=True), "one")
    assert type(error) is ProtocolError
    assert "bracketed_paste" in error.message


async def test_a_prompt_in_the_middle_of_a_line_ends_an_answer_too(world: World) -> None:
    provider = scripted(world, "while True: print(input('> ') + '!', end='')")
    session = await provider.open()
    assert [await said(session, provider, text) for text in ("one", "two")] == ["one!", "two!"]
    await session.aclose()


@pytest.mark.parametrize("ending", ["/quit", None])
async def test_a_cli_is_asked_to_leave(world: World, ending: str | None) -> None:
    left = world.root / "left"
    program = f"try:\n    while input('> ') != '/quit': pass\nexcept EOFError: pass\nopen({str(left)!r}, 'w').close()"
    provider = scripted(world, program, exit=ending)
    session = await provider.open()
    await session.prepare(provider.session_options(request("x")))
    await session.aclose()
    assert left.exists()


async def test_a_cli_that_does_not_leave_is_killed_with_what_it_has_started(world: World) -> None:
    program = (
        "for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid(); time.sleep(3600)\n"
        "while True:\n    try: input('> ')\n    except EOFError: pass"
    )
    provider = scripted(world, program)
    session = await provider.open()
    await session.prepare(provider.session_options(request("x")))
    began = time.monotonic()
    await asyncio.gather(session.aclose(), provider.aclose())
    assert time.monotonic() - began < 30
    assert world.processes() == []


@pytest.mark.parametrize("version", [(3, 13)])
async def test_a_real_line_editor_that_takes_pastes_and_draws_what_it_likes(
    world: World, version: tuple[int, int]
) -> None:
    if sys.version_info < version:
        pytest.skip("Python's own line editor came with 3.13")
    env = {"TERM": "xterm-256color", "PYTHON_BASIC_REPL": ""}
    provider = Python(world, "python", Path(sys.executable), bracketed_paste=True, env=env).provider
    session = await provider.open()
    assert await said(session, provider, "for i in range(2):\n    print(i)") == "0\n1"
    assert await said(session, provider, "print('\\n'.join('ab'), end='')") == "a\nb"
    await session.aclose()
