"""An agent that speaks ACP, and misbehaves on order. Run as a program, with the standard library alone.

`FAKE_ACP` is a JSON object. `log` is where it keeps what it received, one JSON object a line; `ignores` may hold `eof`,
`term` and `cancel`; `initialize` and `session` may be `hang`, `die`, or the error to answer with; `session_s` is how
long a session takes to begin; `say` holds fields that its introduction has in place of its own; `models` is `options`
or `legacy`; `usage` is what a result tells; behind `most_sessions` it opens no more.

The answer to a prompt is the text that its model would have been sent: that of the prompt's blocks. A text of
`[word] rest` makes it do otherwise, see `_SCENES`: what it says then is told there. That of the contract kit's
`calling`, also as the result of a tool, is answered with these calls of the tools that it was given a server of, one
behind the other. What a model API would have been sent is logged as `api`. With `leave` it asks for that first.
"""

import itertools
import json
import os
import queue
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ORDER: Json = json.loads(os.environ.get("FAKE_ACP", "{}"))
IGNORES = ORDER.get("ignores", [])
USAGE = {"inputTokens": 11, "outputTokens": 7, "totalTokens": 26, "cachedReadTokens": 5, "thoughtTokens": 3}
MODELS = ("small", "large")
LAST_WORDS = "fatal: the fake is broken\n"

_lock = threading.Lock()
_ids = itertools.count(1)
_asked: dict[int, "queue.Queue[Json]"] = {}
_cancelled: dict[str, threading.Event] = {}
_conversations: dict[str, list[Json]] = {}
_servers: dict[str, "Server"] = {}
_waiting: dict[str, "queue.Queue[Json | None]"] = {}


def send(**message: Any) -> None:
    with _lock:
        sys.stdout.buffer.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        sys.stdout.buffer.flush()


def log(**entry: Any) -> None:
    if "log" in ORDER:
        with _lock, Path(ORDER["log"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def hang() -> None:
    while True:
        time.sleep(3600)


def die() -> None:
    sys.stderr.write(LAST_WORDS)
    sys.stderr.flush()
    os._exit(3)


def ask(method: str, **params: Any) -> Json:
    """The client's answer: its `result` or `error`."""
    number = next(_ids)
    _asked[number] = queue.Queue()
    send(id=number, method=method, params=params)
    return _asked[number].get()


class Server:
    """A server of tools, asked over HTTP as the protocol says; its answer is JSON or a stream of one event."""

    def __init__(self, told: Json) -> None:
        self._url = told["url"]
        self._headers = {header["name"]: header["value"] for header in told["headers"]}
        self._headers |= {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        self.ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "f", "version": "1"})
        self.tell("notifications/initialized")
        self.tools = self.ask("tools/list")["result"]["tools"]

    def ask(self, method: str, **params: Any) -> Json:
        return self.ask_as(next(_ids), method, params)

    def ask_as(self, number: int, method: str, params: Json, patience_s: float | None = None) -> Json:
        body = self._post({"jsonrpc": "2.0", "id": number, "method": method, "params": params}, patience_s)
        if body.startswith((b":", b"event:")):
            body = next(line for line in body.split(b"\n") if line.startswith(b"data: ")).removeprefix(b"data: ")
        answer: Json = json.loads(body)
        return answer

    def tell(self, method: str, **params: Any) -> None:
        self._post({"jsonrpc": "2.0", "method": method, "params": params})

    def _post(self, message: Json, patience_s: float | None = None) -> bytes:
        asked = urllib.request.Request(self._url, json.dumps(message).encode(), self._headers)
        with urllib.request.urlopen(asked, timeout=patience_s) as answer:
            body: bytes = answer.read()
        return body


class Turn:
    """A prompt that is worked on, in a thread of its own."""

    def __init__(self, session: str, text: str) -> None:
        self.session = session
        self.text = text
        self.cancelled = _cancelled[session]
        self.stop_reason = "end_turn"
        self.said: list[str] = []

    def update(self, what: str, **fields: Any) -> None:
        send(method="session/update", params={"sessionId": self.session, "update": {"sessionUpdate": what, **fields}})

    def answer(self, text: str) -> None:
        """What the model would answer its last message."""
        server = _servers.get(self.session)
        log(api={"messages": _conversations[self.session], "tools": server.tools if server else []})
        word, found, rest = text.removeprefix("[").partition("]")
        scene = _SCENES.get(word) if found and text.startswith("[") else None
        (scene or echo)(self, rest.removeprefix(" ") if scene else text)

    def asked_client(self, name: str, arguments: Json) -> Json | None:
        """The result of a tool of the client's; None when the turn was cancelled."""
        waiting = _waiting[self.session] = queue.Queue()
        server = _servers[self.session]

        def asking() -> None:
            try:
                waiting.put(server.ask("tools/call", name=name, arguments=arguments)["result"])
            except OSError:
                waiting.put(None)

        threading.Thread(target=asking, daemon=True).start()
        result = waiting.get()
        if result is None:
            self.stop_reason = "cancelled"
        return result

    def say(self, text: str, kind: str = "agent_message_chunk") -> None:
        self.said.append(text)
        self.update(kind, content={"type": "text", "text": text})


def echo(turn: Turn, text: str) -> None:
    for start in range(0, len(text), 7):
        turn.say(text[start : start + 7])


def hold(turn: Turn, _rest: str) -> None:
    turn.say("first")
    if "cancel" in IGNORES:
        hang()
    turn.cancelled.wait()
    turn.stop_reason = "cancelled"


def die_midway(turn: Turn, _rest: str) -> None:
    turn.say("first")
    die()


def silence(_turn: Turn, _rest: str) -> None:
    hang()


def leave(turn: Turn, rest: str) -> None:
    """Asks for leave with the kinds of options that `rest` names, and says what came of it."""
    options = [{"optionId": f"id-{kind}", "name": kind, "kind": kind} for kind in rest.split()]
    call = {"toolCallId": "t1", "title": "rm -rf /"}
    answer = ask("session/request_permission", sessionId=turn.session, toolCall=call, options=options)
    turn.say(json.dumps(answer["result"]["outcome"]))


def grab(turn: Turn, rest: str) -> None:
    """Asks for what `rest` names, and says which error came of it."""
    answer = ask(rest, sessionId=turn.session, path="/etc/passwd", command="id")
    turn.say(str(answer["error"]["code"]))


def use_tools(turn: Turn, _rest: str) -> None:
    turn.update("plan", entries=[])
    turn.say("I look.")
    turn.update("tool_call", toolCallId="t1", title="ls", kind="execute", status="pending")
    turn.update("tool_call_update", toolCallId="t1", status="completed", title="ls /")
    turn.update("tool_call_update", toolCallId="t2", status="completed", title="cat x")
    turn.say(" Done.")


def think(turn: Turn, rest: str) -> None:
    turn.say("well ", "agent_thought_chunk")
    turn.say("then", "agent_thought_chunk")
    turn.say(rest)


def garble(turn: Turn, rest: str) -> None:
    with _lock:
        sys.stdout.buffer.write(b"npm warn: this is no JSON\n\n[1]\n" + b'{"jsonrpc":"2.0","id":999,"result":{}}\n')
    turn.update("never_heard_of")
    send(method="never/heard_of", params={})
    send(method="session/update", params={"sessionId": "nobody", "update": {"sessionUpdate": "plan"}})
    turn.say(rest)


def fail(_turn: Turn, rest: str) -> None:
    raise FailError(json.loads(rest))


def fail_midway(turn: Turn, rest: str) -> None:
    turn.say("first")
    raise FailError(json.loads(rest))


def stop(turn: Turn, rest: str) -> None:
    turn.say("cut")
    turn.stop_reason = rest


def wait(turn: Turn, _rest: str) -> None:
    turn.cancelled.wait()
    turn.stop_reason = "cancelled"


def call(turn: Turn, rest: str) -> None:
    """Makes calls, and answers what the last of them brought: its text, or what that asks for in turn."""
    told = json.loads(rest)
    if told["text"]:
        turn.say(told["text"])
    calls = [(f"t{next(_ids)}", name, json.loads(raw)) for name, raw in told["calls"]]
    said = {"role": "assistant", "text": told["text"], "calls": calls}
    results: list[Json] = []
    for call_id, name, arguments in calls:
        title = {"toolCallId": call_id, "title": f"mcp__runnerd__{name}"}
        turn.update("tool_call", **title)
        if "leave" in ORDER:
            options = [{"optionId": kind, "name": kind, "kind": kind} for kind in ("allow_once", "reject_once")]
            answer = ask("session/request_permission", sessionId=turn.session, toolCall=title, options=options)
            if answer["result"]["outcome"].get("optionId") != "allow_once":
                turn.say("I may not.")
                return
        found = turn.asked_client(name, arguments)
        if found is None:
            return
        text = "".join(block["text"] for block in found["content"] if block["type"] == "text")
        results.append({"role": "tool", "id": call_id, "text": text, "is_error": found["isError"]})
    _conversations[turn.session] += [said, *results]
    turn.said.clear()
    turn.answer(results[-1]["text"])


def call_in_haste(turn: Turn, rest: str) -> None:
    """Calls a tool and does not wait for long: it hangs up, says so and does not, or neither. Then it ends its turn.

    Or it shows the call as failed, and goes on with its turn.
    """
    server, number = _servers[turn.session], next(_ids)

    def asking() -> None:
        with suppress(OSError, StopIteration):
            server.ask_as(number, "tools/call", {"name": "get_weather"}, 0.3 if rest == "hangs-up" else None)

    turn.update("tool_call", toolCallId="t1", title="mcp__runnerd__get_weather")
    asked = threading.Thread(target=asking, daemon=True)
    asked.start()
    if rest == "hangs-up":
        asked.join()
    else:
        time.sleep(0.3)
    if rest == "says-so":
        server.tell("notifications/cancelled", requestId=number)
    if rest == "shows-it":
        turn.update("tool_call_update", toolCallId="t1", status="failed")
    turn.say("I do not know.")
    log(given_up=True)
    if rest == "shows-it":
        wait(turn, rest)


def call_both(turn: Turn, rest: str) -> None:
    """Calls two tools at once, and shows of each how it ended."""

    def asking(call_id: str, name: str) -> None:
        turn.update("tool_call", toolCallId=call_id, title=f"mcp__runnerd__{name}")
        result = _servers[turn.session].ask("tools/call", name=name)["result"]
        turn.update("tool_call_update", toolCallId=call_id, status="failed" if result["isError"] else "completed")

    calls = [("t1", "get_weather"), ("t2", "get_time")]
    asked = [threading.Thread(target=asking, args=call, daemon=True) for call in calls]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    turn.say(rest)


def call_later(turn: Turn, rest: str) -> None:
    """Calls a tool once its turn has ended."""

    def asking() -> None:
        time.sleep(0.3)
        log(late=_servers[turn.session].ask("tools/call", name="get_weather"))

    threading.Thread(target=asking, daemon=True).start()
    turn.say(rest)


def stay_mute(_turn: Turn, _rest: str) -> None:
    pass


class FailError(Exception):
    """The prompt is answered with this error."""


_SCENES: dict[str, Callable[[Turn, str], None]] = {
    "hold": hold,
    "die": die_midway,
    "silence": silence,
    "leave": leave,
    "grab": grab,
    "tools": use_tools,
    "think": think,
    "garble": garble,
    "fail": fail,
    "fail-midway": fail_midway,
    "stop": stop,
    "wait": wait,
    "mute": stay_mute,
    "call": call,
    "haste": call_in_haste,
    "both": call_both,
    "later": call_later,
}


def prompt(request_id: int, params: Json) -> None:
    blocks = params["prompt"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    turn = Turn(params["sessionId"], text)
    _conversations[turn.session].append({"role": "user", "text": text})
    try:
        turn.answer(text)
    except FailError as error:
        send(id=request_id, error=error.args[0])
        return
    _conversations[turn.session].append({"role": "assistant", "text": "".join(turn.said), "calls": []})
    usage = {"usage": ORDER.get("usage", USAGE)} if turn.stop_reason != "cancelled" else {}
    prompts = [message for message in _conversations[turn.session] if message["role"] == "user"]
    turn.update("usage_update", used=26, size=200_000, cost={"amount": 0.5 * len(prompts), "currency": "USD"})
    send(id=request_id, result={"stopReason": turn.stop_reason, **usage})


def introduction() -> Json:
    able = {"promptCapabilities": {"image": True}, "sessionCapabilities": {"close": {}}}
    able["mcpCapabilities"] = {"http": True}
    ways = [{"id": "key", "name": "Key", "description": "Set FAKE_KEY"}]
    info = {"name": "fake", "title": "Fake Agent", "version": "1.2.3"}
    told = {"protocolVersion": 1, "agentCapabilities": able, "agentInfo": info, "authMethods": ways}
    return {**told, **ORDER.get("say", {})}


def new_session(servers: list[Json]) -> Json:
    time.sleep(ORDER.get("session_s", 0))
    session = f"s{next(_ids)}"
    _conversations[session] = []
    for server in servers:
        _servers[session] = Server(server)
    _cancelled[session] = threading.Event()
    told: Json = {"sessionId": session}
    if ORDER.get("models") == "legacy":
        listed = [{"modelId": model, "name": model} for model in MODELS]
        told["models"] = {"availableModels": listed, "currentModelId": MODELS[0]}
    elif ORDER.get("models") == "options":
        groups = [{"group": model, "name": model, "options": [{"value": model, "name": model}]} for model in MODELS]
        model = {"id": "m", "name": "Model", "category": "model", "type": "select", "currentValue": MODELS[0]}
        told["configOptions"] = [model | {"options": groups}]
    return told


def serve(request_id: int, method: str, params: Json) -> None:
    order = ORDER.get({"initialize": "initialize", "session/new": "session"}.get(method, ""))
    if order == "hang":
        hang()
    elif order == "die":
        die()
    elif order is not None:
        send(id=request_id, error=order)
    elif method == "initialize":
        send(id=request_id, result=introduction())
    elif method == "session/new" and len(_conversations) >= ORDER.get("most_sessions", 1000):
        hang()
    elif method == "session/new":
        send(id=request_id, result=new_session(params["mcpServers"]))
    elif method == "session/load":
        time.sleep(ORDER.get("session_s", 0))
        told = {"sessionUpdate": "user_message_chunk", "content": {"type": "text", "text": "before"}}
        send(method="session/update", params={"sessionId": params["sessionId"], "update": told})
        send(id=request_id, result={})
    elif method == "session/prompt":
        prompt(request_id, params)
    elif method in ("session/set_model", "session/set_config_option"):
        wanted = params.get("modelId") or params.get("value")
        known = wanted in MODELS
        send(id=request_id, **({"result": {}} if known else {"error": {"code": -32602, "message": "unknown model"}}))
    elif method == "session/close":
        send(id=request_id, result={})
    else:
        send(id=request_id, error={"code": -32601, "message": "Method not found"})


def lines() -> Iterator[Json]:
    for line in sys.stdin.buffer:
        yield json.loads(line)


def main() -> None:
    if "term" in IGNORES:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log(argv=sys.argv[1:], cwd=str(Path.cwd()), tmpdir=os.environ.get("TMPDIR"))
    for message in lines():
        log(received=message)
        method, request_id = message.get("method"), message.get("id")
        if method is None:
            _asked[message["id"]].put(message)
        elif request_id is None:
            if method == "session/cancel":
                session = message["params"]["sessionId"]
                _cancelled[session].set()
                if session in _waiting:
                    _waiting[session].put(None)
        else:
            threading.Thread(target=serve, args=(request_id, method, message["params"]), daemon=True).start()
    if "eof" in IGNORES:
        hang()
    os._exit(0)


if __name__ == "__main__":
    main()
