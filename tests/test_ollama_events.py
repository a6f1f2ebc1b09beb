"""The lines of Ollama's `/api/chat` as chunks, and its errors: every row of what is known of its source."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.errors import ContextOverflowError, ProtocolError, RequestCancelledError, RunnerError, VendorError
from runners.messages import Usage
from runners.providers.ollama.events import INTERRUPTED, OllamaTranslator, failure
from runners.stream import (
    ChatChunk,
    Done,
    OrderChecker,
    Reasoning,
    ResponseBuilder,
    Start,
    Text,
    ToolRequestComplete,
    UsageReport,
    Warn,
)

Event = dict[str, Any]
FUZZ = settings(max_examples=150, deadline=None, database=None)
COUNTS: Event = {
    "total_duration": 911183209,
    "load_duration": 54370917,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 188100000,
    "eval_count": 298,
    "eval_duration": 660000000,
}


def line(content: str = "", **message: Any) -> Event:
    said = {"role": "assistant", "content": content, **message}
    return {"model": "qwen3:8b", "created_at": "2026-08-21T18:48:22.1Z", "message": said, "done": False}


def last(content: str = "", *, message: Event | None = None, **more: Any) -> Event:
    return line(content, **(message or {})) | {"done": True, "done_reason": "stop"} | more


def told(*events: Event) -> list[ChatChunk]:
    """The chunks of an answer, whose order must hold."""
    translator, order = OllamaTranslator("mine", "id-1"), OrderChecker()
    chunks = [chunk for event in events for chunk in translator.feed(event)]
    for chunk in chunks:
        order.feed(chunk)
    assert order.ended == translator.ended
    return chunks


def usage_of(chunks: list[ChatChunk]) -> Usage:
    [report] = [chunk for chunk in chunks if isinstance(chunk, UsageReport)]
    return report.usage


def test_an_answer_starts_with_its_first_line_and_ends_with_its_last() -> None:
    chunks = told(line("Hel"), line("lo"), last(**COUNTS))
    usage = Usage(input_tokens=26, output_tokens=298, duration_s=0.911183209, load_s=0.054370917)
    start = Start("id-1", "mine", "qwen3:8b")
    assert chunks == [start, Text("Hel"), Text("lo"), UsageReport(usage), Done("end_turn", "stop")]


def test_an_empty_content_is_no_chunk_but_starts_the_answer() -> None:
    assert told(line("")) == [Start("id-1", "mine", "qwen3:8b")]


def test_thinking_is_reasoning_and_stands_before_the_text_of_its_line() -> None:
    chunks = told(line(thinking="Hm"), line("So", thinking=", yes."), last())
    assert chunks[1:4] == [Reasoning("Hm"), Reasoning(", yes."), Text("So")]


def test_the_last_line_may_carry_content_and_thinking() -> None:
    chunks = told(line("a"), last("b", message={"thinking": "c"}, **COUNTS))
    assert [chunk.type for chunk in chunks] == ["start", "text", "reasoning", "text", "usage", "done"]


def test_an_answer_of_one_line_is_whole() -> None:
    assert [chunk.type for chunk in told(last("all of it"))] == ["start", "text", "usage", "done"]


@pytest.mark.parametrize("native", [True, False], ids=["on the last line", "on a line before it"])
@pytest.mark.parametrize("call_id", [{"id": "call_abcdefgh"}, {"id": ""}, {}], ids=["id", "empty id", "no id"])
def test_a_tool_call_that_nobody_offered_is_told_and_warned_of(native: bool, call_id: Event) -> None:
    called: Event = {"tool_calls": [call_id | {"function": {"index": 0, "name": "f", "arguments": {"city": "Paris"}}}]}
    chunks = told(last(message=called)) if native else told(line(**called), last())
    calls = ["tool_request_start", "warning", "tool_request_arg", "tool_request_complete"]
    assert [chunk.type for chunk in chunks] == ["start", *calls, "usage", "done"]
    [warning] = [chunk for chunk in chunks if isinstance(chunk, Warn)]
    assert "tool" in warning.message
    [call] = [chunk.tool_call for chunk in chunks if isinstance(chunk, ToolRequestComplete)]
    assert (call.name, call.arguments) == ("f", {"city": "Paris"})
    assert call.id == call_id.get("id") or call.id.startswith("call_")
    assert chunks[-1] == Done("tool_calls", "stop")


@pytest.mark.parametrize("calls", [None, []])
def test_no_tool_calls_are_nothing_to_warn_of(calls: Any) -> None:
    assert not [chunk for chunk in told(last("Hi", message={"tool_calls": calls})) if isinstance(chunk, Warn)]


@pytest.mark.parametrize(
    ("reason", "stop_reason"),
    [("stop", "end_turn"), ("length", "length"), ("load", "load"), ("unload", "unload"), ("novelty", "novelty")],
)
def test_why_it_stopped_is_told_in_our_words_or_in_the_server_s_own(reason: str, stop_reason: str) -> None:
    assert told(last("x", done_reason=reason))[-1] == Done(stop_reason, reason)


@pytest.mark.parametrize("reason", [{}, {"done_reason": ""}, {"done_reason": None}], ids=["absent", "empty", "null"])
def test_a_last_line_without_a_reason_is_an_end_like_any_other(reason: Event) -> None:
    done = told(line("x") | {"done": True} | reason)[-1]
    assert isinstance(done, Done)
    assert done.stop_reason == "end_turn"


def test_logprobs_and_where_a_cloud_model_runs_change_nothing() -> None:
    cloud = {"remote_model": "gpt-oss:120b", "remote_host": "https://ollama.com:443", "logprobs": [{"token": "x"}]}
    assert told(line("x") | cloud, last() | cloud) == told(line("x"), last())


def test_durations_are_seconds_on_the_server_s_own_clock() -> None:
    usage = usage_of(told(last("x", total_duration=1_500_000_000, load_duration=250_000_000)))
    assert (usage.duration_s, usage.load_s) == (1.5, 0.25)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"prompt_eval_count": 5, "eval_count": 7}, (5, 7)),
        ({"prompt_eval_count": 5}, (5, 0)),
        ({"eval_count": 7}, (0, 7)),
        ({}, (None, None)),
        ({"eval_count": 0, "prompt_eval_count": 0}, (0, 0)),
    ],
    ids=["both", "nothing said", "prompt from a cache", "neither", "zeros"],
)
def test_a_count_that_is_left_out_beside_another_is_zero(counts: Event, expected: tuple[Any, Any]) -> None:
    usage = usage_of(told(last("x", **counts)))
    assert (usage.input_tokens, usage.output_tokens) == expected
    assert (usage.duration_s, usage.load_s) == (None, None)
    assert (usage.cached_input_tokens, usage.reasoning_tokens, usage.cost_usd) == (None, None, None)


def test_the_end_is_clean_and_nothing_ends_before_it() -> None:
    translator = OllamaTranslator("mine", "id-1")
    translator.feed(line("x"))
    assert (translator.ended, translator.is_clean) == (False, False)
    translator.feed(last())
    assert (translator.ended, translator.is_clean) == (True, True)


def test_an_error_line_fails_the_turn_with_the_server_s_own_words() -> None:
    translator = OllamaTranslator("mine", "id-1")
    translator.feed(line("x"))
    with pytest.raises(VendorError, match="unexpected EOF"):
        translator.feed({"error": "an error was encountered while running the model: unexpected EOF"})
    assert (translator.ended, translator.is_clean) == (True, False)


def test_an_interrupted_answer_ends_as_cancelled_and_not_clean() -> None:
    translator = OllamaTranslator("mine", "id-1")
    translator.feed(line("x"))
    assert translator.feed(INTERRUPTED) == [Done("cancelled", "interrupted")]
    assert (translator.ended, translator.is_clean) == (True, False)


def test_what_is_interrupted_before_it_began_has_no_answer() -> None:
    translator = OllamaTranslator("mine", "id-1")
    with pytest.raises(RequestCancelledError):
        translator.feed(INTERRUPTED)
    assert (translator.ended, translator.is_clean) == (True, False)


@pytest.mark.parametrize("event", [{}, {"type": "novelty"}, {"status": "pulling"}, {"created_at": 1, "model": "x"}])
def test_a_line_that_nobody_knows_is_counted_and_brings_nothing(event: Event) -> None:
    translator = OllamaTranslator("mine", "id-1")
    assert translator.feed(event) == []
    assert translator.unknown.total() == 1
    assert not translator.ended


@pytest.mark.parametrize(
    "event",
    [
        {"done": True},
        line() | {"message": "text"},
        line() | {"message": [1]},
        last(done_reason=["stop"]),
        last(total_duration="long"),
        line(content=5),  # type: ignore[arg-type]
        line(content=[{"type": "text", "text": "parts"}]),  # type: ignore[arg-type]
        line(thinking={"text": "Hm"}),
        last("x", eval_count="many"),
        line() | {"model": 5},
    ],
    ids=[
        *("no model", "message a text", "message a list", "reason a list", "duration a text", "content a number"),
        *("content a list", "thinking an object", "count a text", "model a number"),
    ],
)
def test_a_line_of_another_form_is_a_protocol_error(event: Event) -> None:
    translator = OllamaTranslator("mine", "id-1")
    with pytest.raises(ProtocolError):
        translator.feed(event)
    assert (translator.ended, translator.is_clean) == (True, False)


PLURAL = "the prompt is longer than the context length currently available to the model; shorten the prompt"
LLAMA_OVERFLOW = {
    "code": 400,
    "message": "request (5013 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 5013,
    "n_ctx": 4096,
}
BLIND = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
PULL_AGAIN = "... does not support thinking. Pull the model again to get the latest version with full thinking support"
INCOMPATIBLE = (
    "llama-server process has terminated: exit status 1: this model may be incompatible with your version of Ollama. "
    "If you previously pulled this model, try updating it by running `ollama pull NAME`"
)
STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)

FAILURES: list[tuple[int, Any, str]] = [
    (400, "missing request body", "invalid_request"),
    (400, "invalid character 'n' looking for beginning of value", "invalid_request"),
    (400, "json: cannot unmarshal array into Go struct field Alias.content of type string", "invalid_request"),
    (400, "illegal base64 data at input byte 4", "invalid_request"),
    (400, "model is required", "invalid_request"),
    (400, "invalid model name", "invalid_request"),
    (400, 'invalid think value: "x" (must be "high", "medium", "low", "max", true, or false)', "invalid_request"),
    (400, "this server cannot run this remote model", "invalid_request"),
    (404, "model 'NAME' not found", "model_not_found"),
    (404, 'model "NAME" not found, try pulling it first', "model_not_found"),
    (400, '"NAME" does not support chat', "unsupported"),
    (400, '"NAME" does not support thinking', "unsupported"),
    (400, "registry.ollama.ai/library/llama3:latest does not support tools", "unsupported"),
    (400, PULL_AGAIN, "unsupported"),
    (500, 'option "stop" must be of type array', "invalid_request"),
    (500, 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object', "invalid_request"),
    (500, json.dumps({"error": {"code": 500, "message": BLIND, "type": "server_error"}}), "unsupported"),
    (503, "server busy, please try again.  maximum pending requests exceeded", "overloaded"),
    (500, STOPPED, "vendor_error"),
    (500, f"{STOPPED}: CUDA error", "vendor_error"),
    (500, "an error was encountered while running the model: unexpected EOF", "vendor_error"),
    (500, "llama-server process has terminated: exit status 1", "vendor_error"),
    (500, "llama-server reported out-of-memory during startup: cudaMalloc failed", "vendor_error"),
    (500, "timed out waiting for llama-server to start", "vendor_error"),
    (500, "error starting llama-server: no such file", "vendor_error"),
    (500, "unable to load full model on GPU", "vendor_error"),
    (500, "model requires more system memory (5.6 GiB) than is available (4.1 GiB)", "vendor_error"),
    (500, INCOMPATIBLE, "vendor_error"),
    (401, "unauthorized", "not_authenticated"),
    (403, "ollama cloud is disabled: remote inference is unavailable", "permission"),
    (429, "you have reached your hourly usage limit", "rate_limited"),
    (502, "dial tcp: lookup ollama.com: no such host", "vendor_error"),
    (400, PLURAL, "context_overflow"),
    (400, json.dumps({"error": LLAMA_OVERFLOW}), "context_overflow"),
    (400, {"code": 400, "message": LLAMA_OVERFLOW["message"]}, "context_overflow"),
    (400, "the input length exceeds the context length", "context_overflow"),
    (500, "input length (9 tokens) exceeds the model's maximum context length (8 tokens)", "context_overflow"),
    (200, "an error was encountered while running the model: unexpected EOF", "vendor_error"),
    (200, 'option "stop" must be of type array', "invalid_request"),
]


@pytest.mark.parametrize(("status", "error", "kind"), FAILURES, ids=lambda value: str(value)[:40])
def test_each_known_failure_has_its_kind(status: int, error: Any, kind: str) -> None:
    assert failure(status, {"error": error}, "NAME").kind == kind


@pytest.mark.parametrize(("status", "error", "kind"), [row for row in FAILURES if isinstance(row[1], str)])
def test_the_server_s_own_words_are_the_message(status: int, error: str, kind: str) -> None:
    message = failure(status, {"error": error}, "NAME").message
    assert message == (error if not error.startswith("{") else json.loads(error)["error"]["message"])


@pytest.mark.parametrize(
    ("error", "numbers"),
    [
        (json.dumps({"error": LLAMA_OVERFLOW}), (5013, 4096)),
        ("input length (9 tokens) exceeds the model's maximum context length (8 tokens)", (9, 8)),
        ("the input length exceeds the context length", (None, None)),
        (PLURAL, (None, None)),
    ],
)
def test_an_overflow_tells_how_long_and_how_long_at_most(error: str, numbers: tuple[Any, Any]) -> None:
    overflow = failure(400, {"error": error})
    assert isinstance(overflow, ContextOverflowError)
    assert (overflow.requested_tokens, overflow.max_tokens) == numbers


def test_a_model_that_is_not_pulled_is_mended_by_pulling_it() -> None:
    assert failure(404, {"error": "model 'x:7b' not found"}, "x:7b").hint == "ollama pull x:7b"


def test_a_cloud_model_without_a_login_is_mended_by_signing_in() -> None:
    body = {"error": "unauthorized", "signin_url": "https://ollama.com/connect?name=HOST&key=KEY"}
    error = failure(401, body)
    assert error.hint == "ollama signin"
    assert "KEY" not in str(error.to_dict())


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request"), (403, "permission"), (429, "rate_limited"), (500, "vendor_error"), (503, "overloaded")],
)
def test_an_answer_without_a_word_of_why_tells_its_status(status: int, kind: str) -> None:
    bodies: list[Event] = [{}, {"error": ""}, {"error": None}, {"error": []}, {"error": {"code": 1}}]
    for body in bodies:
        error = failure(status, body)
        assert (error.kind, error.message) == (kind, f"ollama answered with HTTP {status}")


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_lacks_the_very_path_is_not_told_to_pull_a_model(status: int) -> None:
    """`404 page not found` is plain text: another program, or an Ollama older than this API."""
    error = failure(status, {}, "llama3.2")
    assert error.kind != "model_not_found"
    assert error.hint != "ollama pull llama3.2"


def test_an_error_that_is_json_of_another_form_is_told_as_it_is() -> None:
    for text in ("5", "[1]", '"x"', "{}", '{"error": {}}', '{"error": 5}', "null", "[" * 50):
        assert failure(500, {"error": text}).message == text


@pytest.mark.parametrize("text", ["[" * 200_000, '{"error":' * 200_000], ids=["lists", "objects"])
def test_an_error_that_is_nested_too_deeply_is_told_as_it_is(text: str) -> None:
    assert failure(500, {"error": text}).message == text


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=10)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
ANY_MESSAGE = st.fixed_dictionaries(
    {}, optional={"role": ANY_JSON, "content": ANY_JSON, "thinking": ANY_JSON, "tool_calls": ANY_JSON}
)
ANY_LINE = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("m") | ANY_JSON,
        "message": ANY_MESSAGE | ANY_JSON,
        "done": st.booleans() | ANY_JSON,
        "done_reason": st.sampled_from(["stop", "length", "load", "interrupted"]) | ANY_JSON,
        "prompt_eval_count": ANY_JSON,
        "eval_count": ANY_JSON,
        "total_duration": ANY_JSON,
        "load_duration": ANY_JSON,
    },
)
GOOD_LINE = st.builds(line, ANY_TEXT, thinking=ANY_TEXT) | st.builds(last, ANY_TEXT)


@FUZZ
@given(st.lists(GOOD_LINE | ANY_LINE | st.dictionaries(ANY_TEXT, ANY_JSON, max_size=3), max_size=6))
def test_whatever_lines_come_the_order_holds_and_nothing_but_a_runner_error_is_raised(events: list[Event]) -> None:
    translator, order, answer = OllamaTranslator("mine", "id-1"), OrderChecker(), ResponseBuilder()
    for event in events:
        if translator.ended:
            break
        try:
            chunks = translator.feed(event)
        except RunnerError:
            assert translator.ended
            break
        for chunk in chunks:
            order.feed(chunk)
            answer.add(chunk)
    assert order.ended <= translator.ended
    if order.ended:
        response = answer.response()
        assert isinstance(response.content, str)
        counts = (response.usage.input_tokens, response.usage.output_tokens)
        assert all(isinstance(count, int | None) for count in counts)


@FUZZ
@given(st.integers(200, 599), st.dictionaries(st.just("error") | ANY_TEXT, ANY_JSON, max_size=3), ANY_TEXT)
def test_whatever_an_error_says_it_is_a_runner_error_with_a_message(status: int, body: Event, model: str) -> None:
    error = failure(status, body, model)
    assert isinstance(error, RunnerError)
    assert error.message


@FUZZ
@given(ANY_JSON)
def test_whatever_json_stands_in_an_error_s_text_it_has_a_message(inner: Any) -> None:
    assert failure(500, {"error": json.dumps(inner)}).message
