"""A `copilot` that replays a recorded turn, and misbehaves on order. Run as a program, with the standard library alone.

`FAKE_CLI` is a JSON object: `transcript` is a recording, of the headless server or of the one-shot mode, as the mode
needs it; `log` is where it keeps what it received, one JSON object a line: its `argv`, every message as `received`, and
as `api` what a model API would have been sent; `fault` is one of the names below. A session whose system prompt holds
`[well]` is served without the fault.

The answer is the text of the last message, in the events of the recording; `[hold]` is answered with a first word until
it is aborted. Turns of several sessions are told in turn, an event of each. What the real server does beside its
recordings was measured on 1.0.102: that a send without the hook's answer dates and trims the text, that it resumes
nothing but a whole file, that a turn which was aborted stays in its session's history, that some events of a turn come
again behind its end, and that an abort which overtakes its send leaves a session that never says it is idle.

The text of the contract kit's `calling`, as the last message or a result of a tool, is answered with these calls, in
events as 1.0.102 tells them. It counts the size of an answer on through all the messages of a turn.
"""

import base64
import itertools
import json
import os
import select
import signal
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

Event = dict[str, Any]
# A turn yields its events, hooks ({"hook": type, "input": ...}) that it is sent the answers of, and None to be parked.
Turn = Generator[Event | None, Any, None]

_PIECE = 7
_SLOW_S = 0.5
_CALLING = "[call] "
_DELTAS = ("assistant.message_delta", "assistant.tool_call_delta")
_DATE = "<current_datetime>2026-11-20T13:03:06.562+00:00</current_datetime>\n\n"
ORDER: Event = json.loads(os.environ.get("FAKE_CLI", "{}"))
FAULT = ORDER.get("fault", "")
_ABORTED: list[Event] = [
    {"result": {"success": True}},
    {"method": "session.event", "params": {"event": {"type": "session.idle", "data": {"aborted": True}}}},
]
LAST_WORDS = "fatal: the fake is broken\n"


def log(**entry: Any) -> None:
    if "log" in ORDER:
        with Path(ORDER["log"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def hang() -> None:
    while True:
        time.sleep(3600)


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def last_words() -> None:
    sys.stderr.write(LAST_WORDS)
    sys.stderr.flush()
    sys.exit(3)


def flood_stderr() -> None:
    for _ in range(50):
        sys.stderr.write("x" * 1024 * 1024)
    sys.stderr.write("the last words\n")
    sys.stderr.flush()


# What was recorded


def lines_of(path: str) -> list[Event]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


def headless_recording(path: str) -> tuple[list[Event], list[Event]]:
    """The events of the first turn, and what followed the first abort, its reply included, where there is one."""
    messages = [line["msg"] | {"ours": line["dir"] == ">"} for line in lines_of(path)]
    turn = following(messages, "session.send")
    aborted = following(messages, "session.abort") or _ABORTED
    return [message["params"]["event"] for message in turn if "method" in message], aborted


def following(messages: list[Event], method: str) -> list[Event]:
    """What the CLI told behind the first call of a method, up to its idle."""
    begins = next((i for i, message in enumerate(messages) if message["ours"] and message["method"] == method), None)
    told = []
    for message in [] if begins is None else messages[begins:]:
        if not message["ours"] and message.get("method") in (None, "session.event"):
            told.append(message)
            if message.get("params", {}).get("event", {}).get("type") == "session.idle":
                break
    return told


def pieces_of(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def adapted(turn: list[Event], text: str, replaced: dict[str, str], size: int = 0) -> Iterator[Event]:
    """A recorded turn with another text and other ids in it, behind so many bytes of the same turn."""
    wholes = [event["data"]["content"] for event in turn if event["type"] == "assistant.message"]
    shown = False
    for recorded in turn:
        event = copied(recorded, replaced | dict.fromkeys(wholes, text))
        kind, data = event["type"], event.get("data", {})
        if kind == "assistant.streaming_delta":
            continue
        if kind == "assistant.message_start" and not text:
            continue
        if kind == "assistant.message_delta":
            for piece in [] if shown else pieces_of(text):
                size += size_of(piece)
                yield streaming(size)
                yield event | {"data": data | {"deltaContent": piece}}
            shown = True
            continue
        yield event


def size_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def streaming(size: int) -> Event:
    return {"type": "assistant.streaming_delta", "data": {"totalResponseSizeBytes": size}}


def copied(event: Event, replaced: dict[str, str]) -> Event:
    copy: Event = json.loads(json.dumps(event))
    replace(copy, replaced)
    return copy


def replace(value: Any, replaced: dict[str, str]) -> None:
    """Puts other strings in the place of whole ones, wherever they stand."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, dict | list):
            replace(inner, replaced)
        elif isinstance(inner, str):
            value[key] = replaced.get(inner, inner)


def ids_of(turn: list[Event], *kinds: str) -> list[str]:
    found = [e["data"]["messageId"] for e in turn if e["type"] in kinds and "messageId" in e["data"]]
    return list(dict.fromkeys(found))


# Calls of tools


def called_by(text: str) -> tuple[str, list[tuple[str, str]]] | None:
    """See the contract kit: the text before, and (name, arguments' text) of each call."""
    if not text.startswith(_CALLING):
        return None
    told = json.loads(text.removeprefix(_CALLING))
    return told["text"], [(name, raw) for name, raw in told["calls"]]


def asked_by(messages: list[Event]) -> str:
    """What is to be answered: of several results of tools the last one that asks for calls, else the last message."""
    last = itertools.takewhile(lambda message: message["role"] == "tool", reversed(messages))
    results = [text_of(message) for message in last]
    return next((text for text in results if called_by(text)), text_of(messages[-1]))


def cut(raw: str) -> list[str]:
    """The arguments of a call in about seven pieces, as a model streams them; none where there is nothing."""
    size = max(1, len(raw) // 7)
    return [raw[start : start + size] for start in range(0, len(raw), size)]


class Call:
    """A call of a tool, and why the CLI does not hand it on, where it does not."""

    def __init__(self, name: str, raw: str, tools: list[str]) -> None:
        self.id = f"call_{uuid.uuid4().hex}"
        self.request_id = str(uuid.uuid4())
        self.name = name
        self.raw = raw or "{}"
        self.pieces = cut(raw)
        self.arguments: Event = {}
        self.error = ""
        self.said = ""
        try:
            parsed = json.loads(self.raw)
            self.error = "" if isinstance(parsed, dict) else "it is no object"
        except ValueError as error:
            self.error = str(error)
        if self.error:
            cleared = f"The arguments for the tool call '{name}' were not valid JSON. The arguments have been cleared."
            self.said = f"{cleared} Arguments: {raw}. JSON parse error: {self.error}"
            self.raw = "{}"
            return
        self.arguments = parsed
        if name not in tools:
            self.error = f"Tool '{name}' does not exist."
            self.said = f"{self.error} Available tools that can be called are {', '.join(tools)}."

    @property
    def requested(self) -> Event:
        """As the host is asked for it."""
        data = {"requestId": self.request_id, "toolCallId": self.id, "toolName": self.name, "arguments": self.arguments}
        return {"type": "external_tool.requested", "data": data}

    def hook(self, kind: str, **more: Any) -> Event:
        return {"hook": kind, "input": {"toolName": self.name, "toolArgs": self.arguments, **more}}

    def answer_with(self, result: Event) -> None:
        """The host's result."""
        self.said = result["textResultForLlm"]
        self.error = "" if result["resultType"] == "success" else result.get("error", self.said)

    def ended(self, turn_id: str, *, asks: bool) -> Iterator[Event]:
        """What is told when its result is there, the hook first."""
        done = {"result": {"content": self.said, "detailedContent": self.said}}
        failed = {"error": {"message": self.error, "code": "failure"}}
        if asks and self.error:
            yield self.hook("postToolUseFailure", error=self.error)
        elif asks:
            yield self.hook("postToolUse", toolResult={"textResultForLlm": self.said, "resultType": "success"})
        data = {"toolCallId": self.id, "turnId": turn_id, "success": not self.error}
        yield {"type": "tool.execution_complete", "data": data | (failed if self.error else done)}

    @property
    def as_told(self) -> Event:
        """As the model API is sent it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.raw}}

    @property
    def result(self) -> Event:
        """Its result, as the model API is sent it."""
        return {"role": "tool", "tool_call_id": self.id, "content": self.said}


def told_calls(turn: list[Event], text: str, calls: list[Call], turn_id: str, size: int) -> Iterator[Event]:
    """A message that calls tools, behind so many bytes of the same turn; `turn` is a recorded one without calls."""
    message_id = str(uuid.uuid4())
    if text:
        yield {"type": "assistant.message_start", "data": {"messageId": message_id}}
    for piece in pieces_of(text):
        size += size_of(piece)
        yield streaming(size)
        yield {"type": "assistant.message_delta", "data": {"messageId": message_id, "deltaContent": piece}}
    for call in calls:
        size += size_of(call.name)
        yield streaming(size)
        told = {"toolCallId": call.id, "toolName": call.name, "toolType": "function"}
        for piece in call.pieces:
            size += size_of(piece)
            yield streaming(size)
            yield {"type": "assistant.tool_call_delta", "data": told | {"inputDelta": piece}}
    counts = {name: sum(call.name == name for call in calls) for name in (call.name for call in calls)}
    usage = {"finishReason": "tool_calls", "numToolCalls": len(calls), "toolCounts": counts}
    yield like(turn, "assistant.usage", **usage)
    yield like(turn, "model.call_finished", turnId=turn_id)
    requests = [
        {"toolCallId": call.id, "name": call.name, "arguments": call.arguments, "type": "function"} for call in calls
    ]
    whole = {"messageId": message_id, "content": text, "toolRequests": requests, "turnId": turn_id}
    yield like(turn, "assistant.message", **whole)
    for call in calls:
        data = {"toolCallId": call.id, "toolName": call.name, "arguments": call.arguments, "turnId": turn_id}
        yield {"type": "tool.execution_start", "data": data}


def like(turn: list[Event], kind: str, **data: Any) -> Event:
    """The recorded event of a kind with other data in it."""
    recorded = next(event for event in turn if event["type"] == kind)
    event: Event = recorded | {"data": recorded["data"] | data}
    return event


def is_of_an_answer(event: Event) -> bool:
    """Whether what a model says begins here."""
    return str(event["type"]).startswith(("assistant.message", "assistant.streaming", "assistant.reasoning"))


def size_told(text: str, calls: list[Call]) -> int:
    return size_of(text) + sum(size_of(call.name) + size_of("".join(call.pieces)) for call in calls)


# What the model API would be sent


def body_of(session: Event, response_format: Any) -> Event:
    params = session["params"]
    system = params.get("systemMessage", {})
    prompt = system.get("content", "") if system.get("mode") == "replace" else "You are the GitHub Copilot CLI. ..."
    told = [{"role": "system", "content": prompt}] if prompt else []
    effort = params.get("reasoningEffort", "medium")
    body: Event = {
        "model": params.get("model"),
        "messages": told + session["history"],
        "stream": params.get("streaming", False),
    }
    if effort != "none":
        body["reasoning_effort"] = effort
    tools = offered(params)
    if tools:
        body["tools"] = [{"type": "function", "function": tool} for tool in tools]
    if "maxOutputTokens" in params.get("provider", {}):
        body["max_tokens"] = params["provider"]["maxOutputTokens"]
    if response_format is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": response_format["jsonSchema"]}
    return body


def offered(params: Event) -> list[Event]:
    """The tools that the model is offered: the client's, none, or the CLI's own."""
    if params.get("availableTools") == []:
        return []
    if params.get("availableTools") != ["custom:*"]:
        return [{"name": "bash"}]
    keys = ("name", "description", "parameters")
    return [{key: tool[key] for key in keys if key in tool} for tool in params.get("tools", [])]


def user_message(text: str, attachments: list[Event]) -> Event:
    if not attachments:
        return {"role": "user", "content": text}
    parts: list[Event] = [{"type": "text", "text": text}]
    for image in attachments:
        base64.b64decode(image["data"], validate=True)
        parts.append({"type": "text", "text": image.get("displayName", "Attached image").strip() or "Attached image"})
        parts.append({"type": "image_url", "image_url": {"url": f"data:{image['mimeType']};base64,{image['data']}"}})
    return {"role": "user", "content": parts}


def seeded(lines: list[Event]) -> list[Event]:
    """The conversation in a session's file, as messages; ValueError where the real CLI finds it corrupted."""
    if not lines or lines[0]["type"] != "session.start":
        raise ValueError("Session file is corrupted or incompatible")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            uuid.UUID(line["id"])
        except ValueError:
            raise ValueError(corrupted(number, "invalid session event envelope: `id` must be a UUID string")) from None
        data = line["data"]
        needed = ["messageId", "content", "toolRequests"] if line["type"] == "assistant.message" else []
        for name in needed:
            if name not in data:
                raise ValueError(corrupted(number, f"missing field `{name}`"))
        match line["type"]:
            case "user.message":
                text = data.get("transformedContent", data["content"])
                found.append(user_message(text, data.get("attachments", [])))
            case "assistant.message":
                calls = [
                    {
                        "id": call["toolCallId"],
                        "type": "function",
                        "function": {"name": call["name"], "arguments": text_of_arguments(call["arguments"])},
                    }
                    for call in data["toolRequests"]
                ]
                found.append(assistant_message(data["content"], calls))
            case "tool.execution_complete":
                result = data["result"]["content"] if data["success"] else data["error"]["message"]
                found.append({"role": "tool", "tool_call_id": data["toolCallId"], "content": result})
    return found


def assistant_message(text: str, calls: list[Event]) -> Event:
    return {"role": "assistant", "content": text or None} | ({"tool_calls": calls} if calls else {})


def text_of_arguments(arguments: Event | str) -> str:
    """As the model is sent them: a text is left as it is."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def corrupted(line: int, what: str) -> str:
    return f"Session file is corrupted (line {line}: {what})"


def text_of(message: Event) -> str:
    content = message["content"] or ""
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


# The headless server


class RefusedError(Exception):
    """A request that is answered with an error."""


class Server:
    def __init__(self) -> None:
        self.sessions: dict[str, Event] = {}
        self.turns: dict[str, Turn] = {}
        self.running: deque[str] = deque()
        self.asked: dict[str, str] = {}
        self.later: dict[str, tuple[float, Callable[[], None]]] = {}
        self.buffer = bytearray()

    @cached_property
    def recording(self) -> tuple[list[Event], list[Event]]:
        """A turn, and an abort: needed for turns alone, and not there when the recording is of the one-shot mode."""
        return headless_recording(ORDER["transcript"])

    # Frames

    def send(self, **message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    def tell(self, session_id: str, event: Event) -> None:
        event = event | {"id": str(uuid.uuid4())}
        if session_id in self.sessions:
            self.sessions[session_id]["told"].append(event)
        self.send(method="session.event", params={"sessionId": session_id, "event": event})

    def serve(self) -> None:
        """Takes what comes, and tells an event of each turn between."""
        while True:
            due = min((at for at, _ in self.later.values()), default=None)
            wait = 0 if self.running else None if due is None else max(0.0, due - time.monotonic())
            if select.select([0], [], [], wait)[0]:
                data = os.read(0, 1 << 20)
                if not data:
                    return
                self.buffer += data
                while (message := self.next_message()) is not None:
                    log(received=message)
                    self.take(message)
            for session_id, (at, do) in list(self.later.items()):
                if time.monotonic() >= at:
                    del self.later[session_id]
                    do()
            if self.running:
                self.step(self.running.popleft())

    def next_message(self) -> Event | None:
        head, separator, _ = bytes(self.buffer[:100]).partition(b"\r\n\r\n")
        if not separator:
            return None
        length = int(head.split(b":")[1])
        begins = len(head) + len(separator)
        if len(self.buffer) < begins + length:
            return None
        body = bytes(self.buffer[begins : begins + length])
        del self.buffer[: begins + length]
        message: Event = json.loads(body)
        return message

    def take(self, message: Event) -> None:
        if "method" not in message:
            session_id = self.asked.pop(message["id"], "")
            if session_id in self.turns:
                self.step(session_id, message.get("result"))
            return
        method, params = message["method"], message.get("params", {})
        handler = {
            "connect": self.connect,
            "auth.getStatus": self.auth,
            "models.list": self.models,
            "session.create": self.create,
            "session.resume": self.resume,
            "session.sendMessages": self.send_messages,
            "session.tools.handlePendingToolCall": self.handle_tool_call,
            "session.abort": self.abort,
            "session.destroy": self.destroy,
            "session.delete": self.delete,
        }.get(method)
        if handler is None:
            self.send(id=message["id"], error={"code": -32601, "message": f"Unhandled method {method}"})
            return
        try:
            handler(message["id"], params)
        except RefusedError as error:
            said = f"Request {method} failed with message: {error}"
            self.send(id=message["id"], error={"code": -32603, "message": said})

    def reply(self, request_id: Any, **result: Any) -> None:
        self.send(id=request_id, result=result)

    # Methods

    def connect(self, request_id: Any, _params: Event) -> None:
        if FAULT == "hang":
            hang()
        if FAULT == "exit_at_once":
            last_words()
        if FAULT == "slow_connect":
            time.sleep(_SLOW_S)
        version = ORDER.get("version", "1.0.102").split()[-1].strip(".")
        self.reply(request_id, ok=True, protocolVersion=3, version=version, taskKinds=["agent", "shell"])
        if FAULT == "deaf":
            hang()

    def auth(self, request_id: Any, _params: Event) -> None:
        if ORDER.get("logged_in", True):
            self.reply(request_id, isAuthenticated=True, authType="user", login="octocat", host="https://github.com")
        else:
            self.reply(request_id, isAuthenticated=False, statusMessage="Not authenticated")

    def models(self, request_id: Any, _params: Event) -> None:
        if not ORDER.get("logged_in", True):
            raise RefusedError("Not authenticated. Please authenticate first.")
        if FAULT == "no_models":
            raise RefusedError("Request models.list failed with message: fetch failed")
        limits = {"max_context_window_tokens": 128_000, "max_output_tokens": 16_384}
        able = {"limits": limits, "supports": {"vision": True, "reasoningEffort": False}}
        self.reply(request_id, models=[{"id": "gpt-x", "name": "GPT X", "capabilities": able}])

    def resume(self, request_id: Any, params: Event) -> None:
        session_id = params["sessionId"]
        home = params.get("configDir") or os.environ.get("COPILOT_HOME") or Path(os.environ["HOME"]) / ".copilot"
        path = Path(home) / "session-state" / session_id / "events.jsonl"
        if not path.exists():
            raise RefusedError(f"Failed to load session events: Session not found: {session_id}")
        try:
            history = seeded(lines_of(str(path)))
        except ValueError as error:
            raise RefusedError(f"session resume failed: {error}") from None
        self.opened(request_id, params, history)

    def create(self, request_id: Any, params: Event) -> None:
        (Path(params["configDir"]) / "session-state" / params["sessionId"]).mkdir(parents=True)
        self.opened(request_id, params, [])

    def opened(self, request_id: Any, params: Event, history: list[Event]) -> None:
        session_id = params["sessionId"]
        fault = "" if "[well]" in params.get("systemMessage", {}).get("content", "") else FAULT
        self.sessions[session_id] = {"params": params, "history": history, "fault": fault, "told": [], "open": {}}
        if fault == "deaf_to_begin":
            return
        self.tell(session_id, {"type": "session.skills_loaded", "data": {"skills": []}, "ephemeral": True})
        mode = {"isRemote": False, "mode": "interactive", "modelState": {"modelId": params.get("model")}}
        answer = {"sessionId": session_id, "nativeSessionId": session_id} | mode
        if fault == "slow_begin":
            self.later[session_id] = (time.monotonic() + _SLOW_S, lambda: self.reply(request_id, **answer))
        else:
            self.reply(request_id, **answer)

    def known(self, params: Event) -> Event:
        session = self.sessions.get(params["sessionId"])
        if session is None:
            raise RefusedError(f"Session not found for sessionId: {params['sessionId']}")
        return session

    def send_messages(self, request_id: Any, params: Event) -> None:
        session, session_id = self.known(params), params["sessionId"]
        shape = params.get("responseFormat")
        if shape is not None and shape.get("type") != "json_schema":
            raise RefusedError(f"unknown variant `{shape.get('type')}`, expected `json_schema`")
        if shape is not None and "name" not in shape["jsonSchema"]:
            raise RefusedError("missing field `name`")
        if shape is not None and not isinstance(shape["jsonSchema"]["name"], str):
            raise RefusedError(f"invalid type: integer `{shape['jsonSchema']['name']}`, expected a string")
        messages = [message | {"messageId": str(uuid.uuid4())} for message in params["messages"]]

        def begin() -> None:
            self.reply(request_id, messageIds=[message["messageId"] for message in messages])
            self.turns[session_id] = self.answer(session, messages, shape)
            self.running.append(session_id)

        session["send"] = request_id
        if session["fault"] == "told_again":
            # What belongs to the turn before, behind its end.
            for event in session["told"]:
                self.send(method="session.event", params={"sessionId": session_id, "event": event})
        session["told"] = []
        if session["fault"] == "slow_send":
            self.later[session_id] = (time.monotonic() + _SLOW_S, begin)
        else:
            begin()

    def abort(self, request_id: Any, params: Event) -> None:
        session, session_id = self.known(params), params["sessionId"]
        if session_id in self.later and "send" in session:
            # It overtook its send: the turn is gone, and nobody ever says that the session is idle.
            del self.later[session_id]
            self.tell(session_id, {"type": "abort", "data": {"reason": "user_initiated"}})
            self.reply(session["send"], messageIds=[str(uuid.uuid4())])
            self.tell(session_id, {"type": "assistant.idle", "data": {"aborted": True}, "ephemeral": True})
            self.reply(request_id, success=True)
            return
        if self.turns.pop(session_id, None) is None or session["fault"] == "deaf_to_abort":
            self.reply(request_id, success=True)
            return
        for message in self.recording[1]:
            if "method" in message:
                self.tell(session_id, message["params"]["event"])
            else:
                self.reply(request_id, **message["result"])
            if message.get("params", {}).get("event", {}).get("type") == "abort":
                for open_id in session["open"]:
                    self.tell(session_id, {"type": "external_tool.completed", "data": {"requestId": open_id}})
        session |= {"open": {}, "is_parked": False}

    def handle_tool_call(self, request_id: Any, params: Event) -> None:
        session, session_id = self.known(params), params["sessionId"]
        call = session["open"].pop(params["requestId"], None)
        if call is None:
            self.reply(request_id, success=False)
            return
        call.answer_with(params["result"])
        self.tell(session_id, {"type": "external_tool.completed", "data": {"requestId": call.request_id}})
        self.reply(request_id, success=True)
        if not session["open"] and session.pop("is_parked", False):
            self.step(session_id)

    def destroy(self, request_id: Any, params: Event) -> None:
        session_id = params["sessionId"]
        self.turns.pop(session_id, None)
        if self.sessions.pop(session_id, None) is None:
            self.reply(request_id, success=False)
            return
        self.tell(session_id, {"type": "session.shutdown", "data": {"shutdownType": "routine"}})
        self.reply(request_id, success=True)

    def delete(self, request_id: Any, params: Event) -> None:
        self.turns.pop(params["sessionId"], None)
        self.sessions.pop(params["sessionId"], None)
        self.send(method="session.lifecycle", params={"type": "session.deleted", "sessionId": params["sessionId"]})
        self.reply(request_id, success=True)

    # Turns

    def step(self, session_id: str, told: Any = None) -> None:
        """Tells the next event of a turn."""
        turn = self.turns.get(session_id)
        if turn is None:
            return
        try:
            event = turn.send(told)
        except StopIteration:
            self.turns.pop(session_id, None)
            return
        if event is None:
            return
        if "hook" in event:
            self.ask(session_id, "hooks.invoke", {"hookType": event["hook"], "input": event["input"]})
        elif "method" in event:
            self.ask(session_id, event["method"], {})
        else:
            self.tell(session_id, event)
            self.running.append(session_id)

    def ask(self, session_id: str, method: str, params: Event) -> None:
        request_id = str(uuid.uuid4())
        self.asked[request_id] = session_id
        self.send(id=request_id, method=method, params={"sessionId": session_id} | params)

    def answer(self, session: Event, new: list[Event], shape: Any) -> Turn:
        fault, asks = session["fault"], session["params"].get("hooks")
        sent = [user_message(message["prompt"], message.get("attachments", [])) for message in new]
        if asks and not session.get("is_started"):
            yield {"hook": "sessionStart", "input": {"source": "resume"}}
        session["is_started"] = True
        if new:
            prompt = new[-1]["prompt"]
            transformed = _DATE + prompt.rstrip()
            if asks:
                yield {"hook": "userPromptSubmitted", "input": {"prompt": prompt}}
                hook = {"prompt": prompt, "transformedPrompt": transformed}
                said = yield {"hook": "userPromptTransformed", "input": hook}
                transformed = ((said or {}).get("output") or {}).get("modifiedTransformedPrompt", transformed)
            sent[-1] = user_message(transformed, new[-1].get("attachments", []))
        # From here on it is in the session's history, whatever becomes of the turn.
        session["history"] += sent
        body = body_of(session, shape)
        log(api=body)
        turn, _ = self.recording
        users = [message["messageId"] for message in new] or [str(uuid.uuid4())]
        replaced = dict.fromkeys(ids_of(turn, "user.message"), users[-1])
        replaced |= {old: str(uuid.uuid4()) for old in ids_of(turn, "assistant.message_start")}
        replaced |= {"fake-model": str(body["model"])}
        yield from before(fault)
        deltas = 0
        for event in self.messages(session, shape, replaced):
            if event is None or "hook" in event:
                yield event
                continue
            deltas += event["type"] in _DELTAS
            if is_lost(fault, event, deltas):
                continue
            if event["type"] == "session.idle" and asks:
                yield {"hook": "agentStop", "input": {"stopReason": "end_turn"}}
            yield event
            if event["type"] in _DELTAS:
                yield from behind_a_delta(fault, event, session["text"])
                if session["text"] == "[hold]":
                    yield None
        if fault == "exit_after":
            sys.exit(5)

    def messages(self, session: Event, shape: Any, replaced: dict[str, str]) -> Iterator[Event | None]:
        """All the messages of a turn: those that call tools, with what becomes of the calls, and the last one."""
        turn, _ = self.recording
        rest, number, size = turn, 0, 0
        asked = asked_by(session["history"])
        while (called := called_by(asked)) is not None:
            text, wanted = called
            tools = [tool["name"] for tool in offered(session["params"])]
            calls = [Call(name, raw, tools) for name, raw in wanted]
            session["text"] = text
            opening = list(itertools.takewhile(lambda event: not is_of_an_answer(event), rest))
            for event in [*opening, *told_calls(turn, text, calls, str(number), size)]:
                yield copied(event, replaced)
            session["history"].append(assistant_message(text, [call.as_told for call in calls]))
            yield from self.handed_on(session, calls, str(number))
            session["history"] += [call.result for call in calls]
            yield like(turn, "assistant.turn_end", turnId=str(number))
            number, size = number + 1, size + size_told(text, calls)
            replaced = replaced | {"0": str(number)}  # which is a turn's id alone
            again = [like(turn, kind, turnId=str(number)) for kind in ("assistant.turn_start", "model.call_start")]
            rest = again + list(itertools.dropwhile(lambda event: not is_of_an_answer(event), turn))
            log(api=body_of(session, shape))
            asked = asked_by(session["history"])
        session["text"] = asked
        for event in adapted(rest, asked, replaced, size):
            if event["type"] == "assistant.message":
                session["history"].append(assistant_message(asked, []))
            yield event

    def handed_on(self, session: Event, calls: list[Call], turn_id: str) -> Iterator[Event | None]:
        """Asks the host for each call that it can be asked for, and waits for all of them; the others fail at once."""
        asks = session["params"].get("hooks")
        good = [call for call in calls if not call.error]
        for call in calls:
            if call.error:
                yield from call.ended(turn_id, asks=asks)
        yield from (call.hook("preToolUse") for call in good if asks)
        session["open"] = {call.request_id: call for call in good}
        yield from [call.requested for call in good]
        if good and session["fault"] == "exit_after":
            sys.exit(5)
        if session["open"]:
            session["is_parked"] = True
            yield None
        for call in good:
            yield from call.ended(turn_id, asks=asks)


def is_lost(fault: str, event: Event, number: int) -> bool:
    """Whether a delta, or the whole message, is lost on its way."""
    if event["type"] == "assistant.message":
        return fault == "message_lost"
    if event["type"] not in _DELTAS:
        return False
    return (fault == "delta_lost" and number == 2) or (fault == "tail_lost" and number > 1)


def before(fault: str) -> Iterator[Event]:
    match fault:
        case "exit_before":
            last_words()
        case "garbage":
            write(b'not json\r\n\xff\xfe\n{"type": "novelty"}\n\nContent-Length: 7\r\n\r\n[1, 2]\n')
        case "novelty":
            yield {"type": "assistant.novelty", "data": {"deltaContent": "not this"}}
            yield {"type": "novelty"}
            yield {"type": None, "data": []}
            body = b'{"jsonrpc":"2.0","method":"novelty.told","params":{"sessionId":"nobody","event":{"type":"x"}}}'
            write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        case "stderr_flood":
            flood_stderr()
        case "asks":
            yield {"method": "never.heard_of"}


def behind_a_delta(fault: str, delta: Event, text: str) -> Iterator[Event]:
    match fault:
        case "silent":
            hang()
        case "exit_mid":
            last_words()
        case "half_frame":
            write(b'Content-Length: 100\r\n\r\n{"jsonrpc":"2.0","met')
            sys.exit(0)
        case "huge_frame":
            write(b"Content-Length: %d\r\n\r\n" % (65 * 1024 * 1024))
            write(b"x" * (65 * 1024 * 1024))
            hang()
        case "retried_text" if delta["type"] == "assistant.message_delta":
            sentence = json.dumps("Failed native model HTTP request: error decoding response body")
            yield {
                "type": "model.call_failure",
                "data": {"failureKind": "transport", "retryAttempt": 0, "errorMessage": sentence},
            }
            yield {"type": "assistant.turn_retry", "data": {"turnId": "0", "reason": "streaming_error"}}
            again = str(uuid.uuid4())
            yield {"type": "assistant.message_start", "data": {"messageId": again}}
            for piece in pieces_of(text):
                yield delta | {"data": delta["data"] | {"messageId": again, "deltaContent": piece}}


# The one-shot mode


def one_shot() -> None:
    prompt = sys.stdin.buffer.read().decode()
    log(received={"prompt": prompt})
    system = {"role": "system", "content": "You are the GitHub Copilot CLI. ..."}
    log(api={"messages": [system, {"role": "user", "content": _DATE + prompt.rstrip()}]})
    # What is to be answered is its last part.
    text = prompt
    for before_it in ("</instructions>\n\n", "</conversation_so_far>\n\n"):
        text = text.rpartition(before_it)[2]
    turn = lines_of(ORDER["transcript"])
    if FAULT == "garbage":
        write(b'not json\n\xff\xfe\n[1, 2]\n"text"\n\n{"type": "novelty"}\n{}\n')
    elif FAULT == "stderr_flood":
        flood_stderr()
    elif FAULT == "exit_before":
        last_words()
    deltas = 0
    for event in adapted(turn, text, {ids_of(turn, "assistant.message_start")[0]: str(uuid.uuid4())}):
        is_delta = event["type"] == "assistant.message_delta"
        deltas += is_delta
        if is_lost(FAULT, event, deltas):
            continue
        write(json.dumps(event, ensure_ascii=False).encode(errors="replace") + b"\n")
        if is_delta and (text == "[hold]" or FAULT in ("silent", "ignore_term")):
            hang()
        if is_delta and FAULT == "exit_mid":
            last_words()
        if is_delta and FAULT == "exit_zero":
            sys.exit(0)
    if FAULT == "exit_after":
        sys.exit(5)


def main() -> None:
    log(argv=sys.argv[1:], pid=os.getpid())
    if FAULT == "ignore_term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--version" in sys.argv:
        print(ORDER.get("version", "GitHub Copilot CLI 1.0.102."))
        print("Run 'copilot update' to check for updates.")
    elif "--headless" in sys.argv and "--stdio" in sys.argv:
        server = Server()
        server.serve()
        if FAULT == "ignore_term":
            hang()
    elif "--output-format" in sys.argv:
        one_shot()
    else:
        sys.stderr.write("the fake has no other mode\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
