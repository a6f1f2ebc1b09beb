"""What a client of the library sees of a declared CLI, ill or well, and that nothing is left. Real child processes."""

import asyncio
import json
from typing import Any

import psutil
import pytest

from runners.errors import (
    AuthExpiredError,
    ContextOverflowError,
    DeadlineExceededError,
    InvalidRequestError,
    LineTooLongError,
    ModelNotFoundError,
    NetworkError,
    OverloadedError,
    ProcessExitedError,
    ProtocolError,
    RateLimitedError,
    RunnerError,
    VendorError,
)
from runners.messages import ChatRequest
from runners.providers.jsonlines.events import JsonLinesTranslator
from runners.providers.jsonlines.provider import JsonLinesProvider
from runners.stream import Failed, Text, Warn, fold
from runners.testing import request
from tests.subjects.jsonlines import FAKE_ENTRY, FakeJsonLines
from tests.world import Wire, World, user

pytestmark = pytest.mark.usefixtures("no_leaks")

TEXT = "hello world"
FIRST = "hello "
NO_END = FAKE_ENTRY | {"lines": {name: rule for name, rule in FAKE_ENTRY["lines"].items() if name != "end"}}


def faulty(world: World, fault: str, entry: dict[str, Any] | None = None, **order: Any) -> JsonLinesProvider:
    return FakeJsonLines(world, fault=fault, **order).made(**(entry or {}))


async def answered(provider: JsonLinesProvider, text: str = TEXT, **fields: Any) -> str:
    return (await provider.complete(request(text, **fields))).content


async def read(provider: JsonLinesProvider, text: str, seen: list[str]) -> None:
    async with provider.complete_stream(request(text)) as stream:
        async for chunk in stream:
            if isinstance(chunk, Text):
                seen.append(chunk.chunk)
            elif isinstance(chunk, Failed):
                raise chunk.error


async def failed(provider: JsonLinesProvider, kind: type[RunnerError], text: str = TEXT) -> tuple[str, Any]:
    """What the client saw before the error, and the error."""
    seen: list[str] = []
    with pytest.raises(kind) as caught:
        await read(provider, text, seen)
    assert caught.value.runner == "cli"
    assert not provider.sessions
    return "".join(seen), caught.value


async def test_a_run_that_ends_without_its_end_has_failed_although_it_exits_well(world: World) -> None:
    seen, error = await failed(faulty(world, "exits_zero"), ProcessExitedError)
    assert (seen, error.exit_code) == (FIRST, 0)
    assert "code 0" in error.message


async def test_half_a_line_is_no_end(world: World) -> None:
    seen, error = await failed(faulty(world, "half_line"), ProcessExitedError)
    assert (seen, error.exit_code) == (FIRST, 0)


async def test_the_last_line_needs_no_line_feed(world: World) -> None:
    response = await faulty(world, "no_line_feed").complete(request(TEXT))
    assert (response.content, response.stop_reason) == (TEXT, "end_turn")
    assert response.usage is not None
    assert response.usage.output_tokens == 7


async def test_without_a_declared_end_a_good_exit_is_the_end(world: World) -> None:
    assert await answered(faulty(world, "exits_zero", NO_END)) == FIRST


async def test_without_a_declared_end_another_exit_is_what_its_code_says(world: World) -> None:
    seen, error = await failed(faulty(world, "exits_mid", NO_END), RateLimitedError)
    assert (seen, error.exit_code, error.stderr_tail) == (FIRST, 7, "these are my last words")


async def test_an_exit_code_tells_the_kind(world: World) -> None:
    seen, error = await failed(faulty(world, "exits_mid"), RateLimitedError)
    assert (seen, error.exit_code, error.stderr_tail) == (FIRST, 7, "these are my last words")
    seen, error = await failed(faulty(world, "dies_at_once"), RateLimitedError)
    assert (seen, error.exit_code) == ("", 7)


@pytest.mark.parametrize(
    ("order", "kind"),
    [
        ({"message": "the prompt is Too Long", "status": 400}, ContextOverflowError),  # words before a status
        ({"message": "no", "status": 401, "exit_code": 7}, AuthExpiredError),  # a status before an exit code
        ({"message": "no", "status": 404}, ModelNotFoundError),
        ({"message": "no", "status": 422}, InvalidRequestError),
        ({"message": "no", "status": 500}, VendorError),
        ({"message": "no", "status": 529}, OverloadedError),
        ({"message": "no", "exit_code": 9}, NetworkError),
        ({"message": "no", "exit_code": 3}, VendorError),
        ({"message": "no", "exit_code": 0}, VendorError),
    ],
)
async def test_a_failure_is_told_by_words_a_status_or_an_exit_code(
    world: World, order: dict[str, Any], kind: type[RunnerError]
) -> None:
    _, error = await failed(faulty(world, "fails", **order), kind)
    assert type(error) is kind
    assert error.message == order["message"]
    if kind is AuthExpiredError:
        assert error.hint == "fake login"


async def test_lines_that_nobody_knows_are_skipped_and_counted(world: World) -> None:
    assert await answered(faulty(world, "garbage")) == TEXT
    subject = FakeJsonLines(world)
    translator = JsonLinesTranslator("cli", subject.provider.settings, "small")
    for line in ({"type": "novelty"}, {}, {"type": "piece"}, {"type": "novelty"}):
        assert translator.feed(line) == []
    assert translator.unknown == {"novelty": 2, "None": 1, "piece": 1}


async def test_a_value_of_the_wrong_type_names_its_key(world: World) -> None:
    _, error = await failed(faulty(world, "wrong_text"), ProtocolError)
    assert error.message == "runners.cli.lines.text: found an object where a text should be"
    _, error = await failed(faulty(world, "wrong_count"), ProtocolError)
    assert error.message == "runners.cli.lines.usage.input_tokens: found a text where a whole number should be"


async def test_a_function_that_is_given_the_wrong_type_names_its_key(world: World) -> None:
    lines = FAKE_ENTRY["lines"] | {"text": "type == 'piece' && join('', text)"}
    _, error = await failed(FakeJsonLines(world).made(lines=lines), ProtocolError)
    assert error.message == "runners.cli.lines.text: join() is given a string"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("type == 'piece' && contains(type, {n: `1`}.n) && text", "'in <string>' requires string"),
        ("type == 'piece' && @ | [text][?@ > `1`] | [0]", "'>' not supported between instances"),
    ],
)
async def test_what_the_wrong_type_does_to_jmespath_itself_names_the_key_too(world: World, text: str, why: str) -> None:
    _, error = await failed(FakeJsonLines(world).made(lines=FAKE_ENTRY["lines"] | {"text": text}), ProtocolError)
    assert error.message.startswith(f"runners.cli.lines.text: {why}")


async def test_a_filter_without_a_match_is_no_end(world: World) -> None:
    lines = FAKE_ENTRY["lines"] | {"end": "[@][?type == 'end']"}
    assert await answered(FakeJsonLines(world).made(lines=lines)) == TEXT


async def test_a_whole_text_adds_what_was_not_streamed(world: World) -> None:
    lines = FAKE_ENTRY["lines"] | {"text": "type == 'piece' && text == 'hello ' && text"}
    assert await answered(FakeJsonLines(world).made(lines=lines)) == TEXT
    del lines["text"]
    whole = FakeJsonLines(world).made(lines=lines)
    assert not whole.capabilities().streaming
    assert await answered(whole) == TEXT


async def test_a_whole_text_that_says_otherwise_is_warned_of_and_not_added(world: World) -> None:
    answer = await faulty(world, "says_other").complete(request(TEXT))
    assert answer.content == FIRST
    assert any("differs" in warning for warning in answer.warnings)


async def test_usage_that_was_not_told_is_null(world: World) -> None:
    answer = await FakeJsonLines(world).provider.complete(request(TEXT))
    usage = answer.usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (11, 3, 7)
    assert usage.cache_creation_input_tokens is usage.reasoning_tokens is usage.cost_usd is None
    assert (answer.model, answer.reasoning, answer.stop_reason) == ("small-1", "hm", "end_turn")
    lines = FAKE_ENTRY["lines"] | {"usage": {"at": "nowhere", "input_tokens": "in"}}
    answer = await FakeJsonLines(world).made(lines=lines).complete(request(TEXT))
    assert answer.usage.input_tokens is None


async def test_behind_its_end_an_exit_code_counts_no_more(world: World) -> None:
    assert await answered(faulty(world, "exits_after")) == TEXT


async def test_a_cli_that_hangs_meets_its_deadline(world: World) -> None:
    seen, error = await failed(faulty(world, "hangs", {"timeouts": {"silence_s": 4}}), DeadlineExceededError)
    assert (seen, error.deadline) == (FIRST, "silence_s")
    late = faulty(world, "silent", {"timeouts": {"first_chunk_s": 0.5}})
    seen, error = await failed(late, DeadlineExceededError, "x" * 1_000_000)
    assert (seen, error.deadline) == ("", "first_chunk_s")


async def test_a_huge_line_is_an_error_and_not_all_memory(world: World) -> None:
    seen, _ = await failed(faulty(world, "huge_line"), LineTooLongError)
    assert seen == FIRST


async def test_a_prompt_of_a_megabyte_is_written_while_the_cli_has_much_to_say_first(world: World) -> None:
    text = "x" * 1_048_576
    assert await answered(faulty(world, "talks_first"), text) == text


async def test_an_answer_of_a_cli_that_did_not_read_is_warned_of(world: World) -> None:
    answer = await faulty(world, "deaf").complete(request("x" * 1_000_000))
    assert answer.content == "I know"
    assert any("before it had read all" in warning for warning in answer.warnings)


async def test_a_system_prompt_in_a_file_has_any_length_and_one_in_an_argument_does_not(world: World) -> None:
    system = {"role": "system", "content": "é" * 200_000}
    asked = ChatRequest.model_validate({"messages": [system, {"role": "user", "content": TEXT}]})
    subject = FakeJsonLines(world)
    assert (await subject.deliver(asked)).system == system["content"]
    [argument] = [arg for arg in json.loads(subject.log.read_text())["argv"] if arg.startswith("{")]
    assert argument == "{a brace}"
    with pytest.raises(InvalidRequestError, match="128 KiB") as caught:
        await subject.made(args=["--system={system}"]).complete(asked)
    assert "system_file" in str(caught.value.hint)


async def test_what_no_argument_can_be_is_refused_and_no_client_makes_an_option_of_it(world: World) -> None:
    subject = FakeJsonLines(world)
    bare = subject.made(args=["--model", "{model}", "--system-file={system_file}"])
    for provider, model in ((subject.provider, "a\0b"), (bare, "--yolo")):
        with pytest.raises(InvalidRequestError):
            await provider.complete(request(TEXT, model=model))
    assert (await subject.provider.complete(request(TEXT, model="--yolo"))).model == "--yolo-1"
    told_none = subject.made(args=["--system-file={system_file}"])
    with pytest.raises(ModelNotFoundError, match="cannot be told a model"):
        await told_none.complete(request(TEXT, model="large"))


async def test_without_an_argument_for_it_the_system_prompt_stands_in_the_text(world: World) -> None:
    subject = FakeJsonLines(world)
    provider = subject.made(args=["--model={model}"])
    assert provider.capabilities().system_prompt == "inline"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
    assert (await provider.complete(ChatRequest.model_validate({"messages": messages}))).content == TEXT
    prompt = json.loads(subject.log.read_text())["prompt"]
    assert prompt == f"<instructions>\nBe brief.\n</instructions>\n\n{TEXT}"


async def test_each_turn_is_told_the_conversation_and_has_a_process_of_its_own(world: World) -> None:
    subject = FakeJsonLines(world)
    session = await subject.provider.open()
    try:
        await session.prepare(subject.provider.session_options(request("one")))
        sampling = subject.provider.sampling(request("one"))
        for text in ("one", "two"):
            asked = request(text).conversation
            assert (await fold(session.turn(asked, sampling))).content == text
    finally:
        await session.aclose()
    prompts = [json.loads(line)["prompt"] for line in subject.log.read_text().splitlines()]
    assert prompts[0] == "one"
    assert "<user>\none\n</user>\n<assistant>\none\n</assistant>" in prompts[1]


async def test_a_cancel_kills_the_process(world: World) -> None:
    subject = FakeJsonLines(world)
    stream = subject.provider.complete_stream(subject.hold())
    while not isinstance(await anext(stream), Text):
        pass
    [process] = subject.provider.processes()
    await asyncio.wait_for(stream.aclose(), 10)
    assert not psutil.pid_exists(process.pid)
    assert subject.provider.processes() == []


async def test_health_is_what_the_commands_say(world: World) -> None:
    health = await FakeJsonLines(world).provider.health_check()
    assert (health.state, health.version, health.authenticated) == ("ready", "1.2.3", True)
    health = await FakeJsonLines(world, login=1).provider.health_check()
    assert (health.reason, health.hint, health.version) == ("not_authenticated", "fake login", "1.2.3")
    health = await FakeJsonLines(world, health=3).provider.health_check()
    assert (health.state, health.reason) == ("unavailable", "process_exited")
    assert "--version exits with 3" in (health.detail or "")
    well = FakeJsonLines(world, health=3).made(health={"args": ["--version"], "success": [3]})
    assert (await well.health_check()).state == "ready"


async def test_what_is_not_declared_is_not_claimed(world: World) -> None:
    bare = FakeJsonLines(world).made(args=[], lines={"whole_text": "whole"}, exact_text=False)
    able = bare.capabilities()
    assert not any((able.streaming, able.reasoning, able.usage, able.exact_text, able.reasoning_effort))
    assert (able.system_prompt, able.history) == ("inline", "text")
    asked = request(TEXT, reasoning_effort="low")
    assert [chunk for chunk in bare.preflight(asked) if isinstance(chunk, Warn) and "effort" in chunk.message]


async def test_a_daemon_chats_with_a_declared_cli_that_is_asked_for_by_name_and_asks_no_agent_unasked(
    world: World,
) -> None:
    entry = FAKE_ENTRY | {"binary": str(FakeJsonLines(world).fake), "env": {"FAKE_CLI": "{}"}}
    with world.daemon(world.config(json.dumps({"runners": {"mine": entry}}))):
        async with await Wire.connect(world.socket) as wire:
            chunks, response = await wire.read_until_response(
                await wire.request("chat", model="mine:large", messages=user(TEXT))
            )
            assert [chunk["type"] for chunk in chunks] == ["start", "reasoning", "text", "text", "usage", "done"]
            assert (response["result"]["content"], response["result"]["model"]) == (TEXT, "large-1")
            refused = await wire.call("chat", messages=user(TEXT))
            assert refused["error"]["data"]["kind"] == "model_not_found"
