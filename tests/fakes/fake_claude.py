"""A `claude` that replays a recorded turn, and misbehaves on order. Run as a program, with the standard library alone.

`FAKE_CLI` is a JSON object: `transcript` is a recording that holds an interrupted turn and then a whole one; `log` is
where every line from stdin is kept, as the proof of what arrived; `fault` is one of the names below, and `megabytes`
how big it is. The answer to a message is its own text, in the events of the recording, or with `digests` the digest of
the whole conversation that it was told; what ends with `[hold]` is answered with a first word until it is interrupted.
`afterwards` are events that come right behind each answer, in one piece with its end.

A host that names its MCP server is asked for its tools, and for the calls in the text of the contract kit's `calling`,
when that is the last message or the result of a tool. The model's own messages are in the log too, as lines of stdin's
form that have `is_answer`, each before it is told; and so is what the model would have been sent of its tools' results.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]
_PIECE = 7
ORDER: Event = json.loads(os.environ.get("FAKE_CLI", "{}"))
FAULT = ORDER.get("fault", "")
_MEGABYTE = 1024 * 1024
_SERVER = "host"
_CALLING = "[call] "
_REJECTED = "The user doesn't want to proceed with this tool use. The tool use was rejected."
_NOT_JSON = "InputValidationError: {} was called with input that could not be parsed as JSON."


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


def called_by(text: str) -> tuple[str, list[tuple[str, str]]] | None:
    """See the contract kit: the text before, and (name, arguments' text) of each call."""
    if not text.startswith(_CALLING):
        return None
    told = json.loads(text.removeprefix(_CALLING))
    return told["text"], [(name, raw) for name, raw in told["calls"]]


def asked_by(results: list[str]) -> str:
    """What is to be answered of tools' results: the last one that asks for calls, else the last one."""
    return next((text for text in reversed(results) if called_by(text)), results[-1])


def cut(raw: str) -> list[str]:
    """The arguments of a call in about seven pieces, as a model streams them; none where there is nothing."""
    size = max(1, len(raw) // 7)
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def object_of(raw: str) -> Event | None:
    """The object that arguments are, or None; no text at all is an empty one."""
    try:
        value = json.loads(raw or "{}")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def log(line: str) -> None:
    if "log" in ORDER:
        with Path(ORDER["log"]).open("a", encoding="utf-8") as file:
            file.write(line)


def hang() -> None:
    while True:
        time.sleep(3600)


class Recording:
    """The events of a whole turn, and those that follow an interrupt; told with other texts, calls and ids in them."""

    def __init__(self, path: str) -> None:
        events = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
        ends = [index for index, event in enumerate(events) if event["type"] == "result"]
        acknowledged = next(i for i, event in enumerate(events) if i > 1 and event["type"] == "control_response")
        self._interrupted = events[acknowledged : ends[0] + 1]
        turn = events[ends[0] + 1 : ends[1] + 1]
        begins = next(i for i, event in enumerate(turn) if event.get("event", {}).get("message"))
        self._opening, self._message, self.result = turn[:begins], turn[begins:-1], turn[-1]
        self._recorded_id = self._message_id = self._message[0]["event"]["message"]["id"]
        self._spent_usd = 0.0

    def opening(self, tools: list[str]) -> list[Event]:
        """What stands before the first message of a turn. Before each later one stands the last of these events."""
        return [event | ({"tools": tools} if "tools" in event else {}) for event in self._opening]

    def message(self, blocks: list["Block"], reason: str, message_id: str = "") -> Iterator[Event]:
        """A message of other blocks, under the recorded id where no other is given."""
        self._message_id = message_id or self._recorded_id
        start = self._message[0]["event"]
        yield self._streamed(start | {"message": start["message"] | {"id": self._message_id}})
        for index, block in enumerate(blocks):
            yield self._streamed({"type": "content_block_start", "index": index, "content_block": block.start})
            for delta in block.deltas:
                yield self._streamed({"type": "content_block_delta", "index": index, "delta": delta})
            yield self._whole(block.whole)
            yield from block.before_its_stop
            yield self._streamed({"type": "content_block_stop", "index": index})
            yield from block.behind_it
        delta, stop = (event["event"] for event in self._message[-2:])
        yield self._streamed(delta | {"delta": delta["delta"] | {"stop_reason": reason}})
        yield self._streamed(stop)

    def _streamed(self, inner: Event) -> Event:
        event: Event = self._message[-1] | {"event": inner, "uuid": str(uuid.uuid4())}
        return event

    def _whole(self, block: Event) -> Event:
        recorded = next(event for event in self._message if event["type"] == "assistant")
        event: Event = recorded | {"message": recorded["message"] | {"id": self._message_id, "content": [block]}}
        return event

    def ended(self, text: str, messages: int) -> Event:
        """The end of a turn of so many messages."""
        # The CLI's sum is of all its turns.
        self._spent_usd += self.result["total_cost_usd"] * messages
        usage = {name: n * messages if isinstance(n, int) else n for name, n in self.result["usage"].items()}
        told = {"result": text, "total_cost_usd": self._spent_usd, "usage": usage, "num_turns": messages}
        event: Event = self.result | told
        return event

    def interrupted(self, request_id: str) -> Iterator[Event]:
        """What follows an interrupt in the middle of a text."""
        for recorded in self._interrupted:
            event = json.loads(json.dumps(recorded))
            if event["type"] == "control_response":
                event["response"]["request_id"] = request_id
            elif event["type"] == "assistant":
                event["message"] |= {"id": self._message_id, "content": [{"type": "text", "text": "[hold]"}]}
            yield event

    def interrupted_calls(self, request_id: str, call_ids: list[str]) -> Iterator[Event]:
        """What follows an interrupt while calls are open; as 2.1.197 was recorded."""
        yield next(self.interrupted(request_id))
        for call_id in call_ids:
            yield user_event([result_block(call_id, _REJECTED, is_error=True)])
        yield user_event([{"type": "text", "text": "[Request interrupted by user for tool use]"}])
        yield self._interrupted[-1] | {"stop_reason": "tool_use", "terminal_reason": "aborted_tools"}


class Block:
    """A content block of a message, and other events that stand before its stop and behind it."""

    def __init__(self, start: Event, deltas: list[Event], whole: Event) -> None:
        self.start = start
        self.deltas = deltas
        self.whole = start | whole
        self.before_its_stop: list[Event] = []
        self.behind_it: list[Event] = []


def text_block(text: str) -> Block:
    pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return Block({"type": "text", "text": ""}, deltas, {"text": text})


def call_block(call_id: str, name: str, raw: str) -> Block:
    arguments = object_of(raw)
    unparsed = {"__unparsedToolInput": {"raw": raw, "len": len(raw)}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut(raw)]
    start = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    return Block(start, deltas, {"input": unparsed if arguments is None else arguments})


def result_block(call_id: str, content: Any, *, is_error: bool) -> Event:
    failed = {"is_error": True} if is_error else {}
    return {"tool_use_id": call_id, "type": "tool_result", "content": content} | failed


def result_of(call_id: str, message: Event) -> Event:
    """The host's answer to a call, as the model is told it: of a failure the text alone."""
    result = message.get("result") or {
        "content": [{"type": "text", "text": str(message.get("error"))}],
        "isError": True,
    }
    content = [block_of(part) for part in result["content"]]
    is_error = bool(result.get("isError"))
    told = "".join(block.get("text", "") for block in content) if is_error else content
    return result_block(call_id, told, is_error=is_error)


def block_of(part: Event) -> Event:
    if part["type"] != "image":
        return part
    return {"type": "image", "source": {"type": "base64", "media_type": part["mimeType"], "data": part["data"]}}


def user_event(content: list[Event]) -> Event:
    return {"type": "user", "message": {"role": "user", "content": content}, "parent_tool_use_id": None}


def blocks_of(event: Event) -> list[Event]:
    """The blocks of a message, without those that are dropped."""
    content = event["message"]["content"]
    blocks: list[Event] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [block for block in blocks if block.get("text") != "\n"]


def text_of(blocks: list[Event]) -> str:
    """Their texts and images' data. Tools' results are told apart."""
    return "".join(b.get("text") or b.get("source", {}).get("data", "") for b in blocks)


def results_in(blocks: list[Event]) -> list[str]:
    """The texts of tools' results."""
    contents = [block["content"] for block in blocks if block["type"] == "tool_result"]
    return [content if isinstance(content, str) else text_of(content) for content in contents]


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


class Lines:
    """The lines of stdin. Those that come while another one is awaited are kept."""

    def __init__(self) -> None:
        self.kept: deque[Event] = deque()

    def next(self) -> Event | None:
        return self.kept.popleft() if self.kept else self.read()

    def read(self) -> Event | None:
        line = sys.stdin.readline()
        if not line:
            return None
        log(line)
        event: Event = json.loads(line)
        return event

    def answer(self, request_id: str) -> Event:
        """The host's answer to a message to its MCP server."""
        while (event := self.read()) is not None:
            if event["type"] == "control_response" and event["response"]["request_id"] == request_id:
                return answer_in(event)
            self.kept.append(event)
        sys.exit(0)


def answer_in(event: Event) -> Event:
    answer: Event = event["response"]["response"]["mcp_response"]
    return answer


class Host:
    """The host's MCP server and its tools."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._messages = 0
        self.tools: list[str] = []

    def asking(self, method: str, **params: Any) -> Event:
        """A message to the server; it has no answer of its own where it is a notification."""
        message: Event = {"method": method, "jsonrpc": "2.0"} | ({"params": params} if params else {})
        if not method.startswith("notifications/"):
            message["id"] = self._messages
            self._messages += 1
        request = {"subtype": "mcp_message", "server_name": _SERVER, "message": message}
        return {"type": "control_request", "request_id": str(uuid.uuid4()), "request": request}

    def ask(self, method: str, **params: Any) -> Event:
        request = self.asking(method, **params)
        emit(request)
        return self._lines.answer(request["request_id"])

    def begin(self) -> None:
        client = {"name": "claude-code", "version": "2.1.329"}
        self.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=client)

    def list_tools(self) -> None:
        self.ask("notifications/initialized")
        self.tools = [tool["name"] for tool in self.ask("tools/list")["result"]["tools"]]


class Cli:
    """The process and its conversation."""

    def __init__(self) -> None:
        self._recording = Recording(ORDER["transcript"])
        self._lines = Lines()
        self._host = Host(self._lines)
        self._system = ""
        self._told: list[tuple[str, str]] = []

    def run(self) -> None:
        while (event := self._lines.next()) is not None:
            if event["type"] == "control_request":
                self._acknowledge(event)
            elif event["type"] != "control_response":
                self._take(event)

    def _take(self, event: Event) -> None:
        blocks = blocks_of(event)
        results = results_in(blocks)
        others = [block for block in blocks if block["type"] != "tool_result"]
        self._told += [("tool", text) for text in results]
        if others or not results:
            self._told.append((event["type"], text_of(others)))
        if event.get("shouldQuery") is False:
            emit({**self._recording.result, "num_turns": 0, "result": "", "stop_reason": None})
        elif event["type"] == "user":
            misbehave_before(FAULT)
            self._answer(text_of(others) if others or not results else asked_by(results))

    def _acknowledge(self, request: Event) -> None:
        asked = request["request"]
        if asked["subtype"] == "interrupt":
            for event in self._recording.interrupted(request["request_id"]):
                emit(event)
            return
        self._system = "".join(asked.get("systemPrompt", [self._system]))
        has_tools = _SERVER in asked.get("sdkMcpServers", [])
        if has_tools:
            self._host.begin()
        emit({"type": "control_response", "response": {"subtype": "success", "request_id": request["request_id"]}})
        if FAULT == "deaf_to_turns":
            hang()
        if has_tools:
            self._host.list_tools()

    def _answer(self, asked: str) -> None:
        """A whole turn."""
        opening = self._recording.opening(self._host.tools)
        messages = 1
        while (called := called_by(asked)) is not None:
            self._tell(opening)
            results = self._call(*called)
            if results is None:
                return
            asked, opening, messages = asked_by(results), opening[-1:], messages + 1
        self._tell(opening)
        text = digest(self._system, self._told) if ORDER.get("digests") else asked
        self._said(text, [text_block(text).whole])
        message = self._recording.message([text_block(text)], "end_turn", new_id("msg") if messages > 1 else "")
        if self._tell(message, is_held=asked.endswith("[hold]")):
            emit(self._recording.ended(text, messages), *ORDER.get("afterwards", []))
            misbehave_behind_an_answer()

    def _tell(self, events: Iterable[Event], *, is_held: bool = False) -> bool:
        """Tells events, and whether they were not held behind the first delta."""
        for event in events:
            emit(event)
            if is_delta(event):
                misbehave_behind_a_delta(FAULT)
                if is_held:
                    return False
        return True

    def _call(self, text: str, calls: list[tuple[str, str]]) -> list[str] | None:
        """A message that calls tools: the results of its calls, or None where it was interrupted."""
        blocks = [text_block(text)] if text else []
        requests: dict[str, str] = {}
        results: dict[str, Event] = {}
        for name, raw in calls:
            call_id = new_id("toolu")
            block = call_block(call_id, name, raw)
            blocks.append(block)
            if (wrong := self._wrong(name, raw)) is not None:
                results[call_id] = result_block(call_id, f"<tool_use_error>{wrong}</tool_use_error>", is_error=True)
                block.before_its_stop.append(user_event([results[call_id]]))
                continue
            meta = {"claudecode/toolUseId": call_id}
            request = self._host.asking("tools/call", name=name, arguments=object_of(raw), _meta=meta)
            block.behind_it.append(request)
            requests[request["request_id"]] = call_id
        self._said(text, [block.whole for block in blocks])
        *message, stop = self._recording.message(blocks, "tool_use", new_id("msg"))
        self._tell(message)
        emit(stop, *(ORDER.get("afterwards", []) if requests else []))
        if requests and not self._await(requests, results):
            return None
        in_order = [results[block.start["id"]] for block in blocks if block.start["type"] == "tool_use"]
        self._told += [("tool", result) for result in results_in(in_order)]
        log(json.dumps(user_event(in_order)) + "\n")
        return results_in(in_order)

    def _wrong(self, name: str, raw: str) -> str | None:
        """Why a call is not handed on."""
        if name not in self._host.tools:
            return f"Error: No such tool available: {name}"
        return _NOT_JSON.format(name) if object_of(raw) is None else None

    def _await(self, requests: dict[str, str], results: dict[str, Event]) -> bool:
        """Waits for the host's answers; False where an interrupt came."""
        misbehave_behind_an_answer()
        while requests:
            event = self._lines.read()
            if event is None:
                sys.exit(0)
            if event["type"] == "control_response":
                call_id = requests.pop(event["response"]["request_id"], None)
                if call_id is not None:
                    results[call_id] = result_of(call_id, answer_in(event))
                    emit(user_event([results[call_id]]))
            elif event["type"] == "control_request" and event["request"]["subtype"] == "interrupt":
                emit(*self._recording.interrupted_calls(event["request_id"], list(requests.values())))
                return False
            elif event["type"] == "control_request":
                self._acknowledge(event)
            else:
                self._lines.kept.append(event)
        return True

    def _said(self, text: str, content: list[Event]) -> None:
        """Keeps a message of the model's."""
        self._told.append(("assistant", text))
        message = {"role": "assistant", "content": content}
        log(json.dumps({"type": "assistant", "message": message, "is_answer": True}) + "\n")


def new_id(kind: str) -> str:
    """Never the same again, in no other process either."""
    return f"{kind}_{uuid.uuid4().hex}"


def misbehave_behind_an_answer() -> None:
    if FAULT == "exit_after":
        sys.exit(5)
    if FAULT == "exit_between":
        signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
    if FAULT == "stay":
        hang()


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
    Cli().run()


if __name__ == "__main__":
    main()
