"""An `ollama` that echoes, and misbehaves on order. Run as a program, with the standard library alone.

`FAKE_OLLAMA` is a JSON object: `log` is where every request is kept, as the proof of what arrived; a client that left
before its answer ended is kept as the method DISCONNECT. `version`; `models` are {name: {capabilities, context_length,
parameters}}; `native` puts tool calls into the last line, as models with a template of their own have it; `tool_ids`
false leaves out their ids, as before 0.12.10; `child` starts a process as the model's runner at the first chat, which
lives as long as the server; `slow_start` is the seconds between listening and answering; `fault` is deaf, no_listen,
exit, die_mid_chat or ignore_term.

The answer to a chat is its last user message, or the last one of the tool results behind that. As such [hold],
[silent], [tool], [tools], [error:STATUS:message], [break], [drop], [cut], [length], [burst:N] and [garbage] are orders,
and so is the text of the contract kit's `calling`, in any of the results. Arguments that are no object cannot come from
a server that parses them itself: they are an empty one.
"""

import http.client
import itertools
import json
import os
import re
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NoReturn

Body = dict[str, Any]
_CALLING = "[call] "
_PIECE = re.compile(".{1,7}", re.DOTALL)
_DATE = "2026-08-21T18:48:22.123456789Z"
_MODELS: dict[str, Body] = {
    "llama3.2:latest": {"capabilities": ["completion", "tools"], "context_length": 131072},
    "qwen3:8b": {"capabilities": ["completion", "tools", "thinking"], "context_length": 40960},
    "llava:7b": {"capabilities": ["completion", "vision"], "context_length": 32768},
    "nomic-embed-text:latest": {"capabilities": ["embedding"], "context_length": 2048},
}
ORDER: Body = json.loads(os.environ.get("FAKE_OLLAMA", "{}"))
FAULT: str = ORDER.get("fault", "")
VERSION: str = ORDER.get("version", "0.32.15")
MODELS: dict[str, Body] = ORDER.get("models", _MODELS)
LOADED: dict[str, Body] = {}
CHILDREN: list["subprocess.Popen[bytes]"] = []
LOCK = threading.Lock()


class RefusalError(Exception): ...


def refuse(when: bool, message: str, status: int = 400) -> None:
    signin = {"signin_url": "https://ollama.com/connect?name=fake&key=ZmFrZQ"} if status == 401 else {}
    if when:
        raise RefusalError(status, {"error": message, **signin})


def known(model: str | None) -> str:
    """The full name of a model that is here."""
    refuse(not model, "model is required")
    name = str(model) if ":" in str(model).rsplit("/", 1)[-1] else f"{model}:latest"
    refuse(name not in MODELS, f"model '{model}' not found", 404)
    return name


def listed(name: str) -> Body:
    details = {"format": "gguf", "family": "fake", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
    found: Body = {"name": name, "model": name, "modified_at": _DATE, "size": 2019393189, "digest": "a80c4f17" * 8}
    return found | {"details": details, "capabilities": MODELS[name]["capabilities"]}


def check(request: Body) -> None:
    """Refuses what the real one refuses, with its words and in its order."""
    think, form, messages = request.get("think"), request.get("format") or {}, request.get("messages") or []
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    images = [image for message in messages for image in message.get("images") or []]
    thinkable = think in (None, True, False, "high", "medium", "low", "max")
    refuse(not thinkable, f'invalid think value: "{think}" (must be "high", "medium", "low", "max", true, or false)')
    typed = all(isinstance(message.get("content"), str | None) for message in messages)
    refuse(not typed, "json: cannot unmarshal array into Go struct field Alias.content of type string")
    refuse(any(isinstance(call["function"]["arguments"], str) for call in calls), "expected { at start of JSON object")
    encoded = all(re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", image) and len(image) % 4 == 0 for image in images)
    refuse(not encoded, "illegal base64 data at input byte 4")
    name = known(request.get("model"))
    able = MODELS[name]["capabilities"]
    refuse(bool(think) and "thinking" not in able, f'"{request["model"]}" does not support thinking')
    refuse("completion" not in able, f'"{request["model"]}" does not support chat')
    tools = bool(request.get("tools"))
    refuse(tools and "tools" not in able, f"registry.ollama.ai/library/{name} does not support tools")
    for option, value in (request.get("options") or {}).items():
        wanted = "array" if option == "stop" else "float32" if option in ("temperature", "top_p") else "integer"
        right = isinstance(value, list if option == "stop" else int | float) and not isinstance(value, bool)
        refuse(not right, f'option "{option}" must be of type {wanted}', 500)
    wrong = f'invalid format: {json.dumps(json.dumps(form))}; expected "json" or a valid JSON Schema object'
    refuse(form != "json" and not isinstance(form, dict), wrong, 500)
    blind = '{"error":{"code":500,"message":"image input is not supported","type":"server_error"}}'
    refuse(bool(images) and "vision" not in able, blind, 500)


def asked(messages: list[Body]) -> str:
    """What was ordered, or the text to answer with."""
    last = itertools.takewhile(lambda message: message["role"] == "tool", reversed(messages))
    results: list[str] = [message["content"] for message in last]
    if results:
        return next((text for text in results if called_by(text)), results[0])
    users = [message for message in messages if message["role"] == "user"]
    return str(users[-1].get("content") or "") if users else ""


def called_by(text: str) -> tuple[str, list[tuple[str, str]]] | None:
    """See the contract kit: the text before, and (name, arguments' text) of each call."""
    if not text.startswith(_CALLING):
        return None
    told = json.loads(text.removeprefix(_CALLING))
    return told["text"], [(name, raw) for name, raw in told["calls"]]


def object_of(raw: str) -> Body:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def calls_in(text: str, tools: list[Body]) -> list[Body]:
    """The calls that a text orders, as a model makes them."""
    if called := called_by(text):
        wanted = [(f"call_{uuid.uuid4().hex[:8]}", name, object_of(raw)) for name, raw in called[1]]
    else:
        some = tools[: {"[tool]": 1, "[tools]": None}.get(text, 0)]
        arguments = {"city": "Paris", "days": 2}
        wanted = [(f"call_{index:08}", tool["function"]["name"], arguments) for index, tool in enumerate(some)]
    calls: list[Body] = []
    for index, (call_id, name, arguments) in enumerate(wanted):
        id_of_it = {"id": call_id} if ORDER.get("tool_ids", True) else {}
        calls.append(id_of_it | {"function": {"index": index, "name": name, "arguments": arguments}})
    return calls


def replies(request: Body, text: str) -> Iterator[Body]:
    """The lines of a whole answer."""

    def line(content: str, **more: Any) -> Body:
        said = {"message": {"role": "assistant", "content": content, **more}}
        return {"model": request["model"], "created_at": _DATE, **said, "done": False}

    pieces = re.findall(_PIECE, json.dumps({"answer": text}) if request.get("format") else text)
    if burst := re.fullmatch(r"\[burst:(\d+)]", text):
        pieces = [f"{number} " for number in range(int(burst[1]))]
    calls = calls_in(text, request.get("tools") or [])
    if calls:
        pieces = re.findall(_PIECE, (called_by(text) or ("",))[0])
    # A model that can think does so unless it is told not to.
    thinks = "thinking" in MODELS[known(request["model"])]["capabilities"] and request.get("think") is not False
    thoughts = ["The user", " wants an echo."] if thinks else []
    yield from [line("", thinking=thought) for thought in thoughts]
    yield from [line(piece) for piece in pieces]
    called = {"tool_calls": calls} if calls else {}
    if calls and not ORDER.get("native"):
        yield line("", **called)
    counted = sum(len(message.get("content") or "") for message in request["messages"])
    last = {"done": True, "done_reason": "length" if text == "[length]" else "stop", "prompt_eval_count": counted}
    last |= {"total_duration": 911183209, "load_duration": 54370917, "prompt_eval_duration": 188100000}
    last |= {"eval_count": len(thoughts) + len(pieces), "eval_duration": 660000000}
    yield line("", **(called if ORDER.get("native") else {})) | last


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            request = json.loads(body) if body else None
            self.note(self.command, request)
            self.route(request)
        except RefusalError as refusal:
            self.answer(*refusal.args)
        except ConnectionError:
            self.note("DISCONNECT", None)
            self.close_connection = True
        except ValueError:
            self.answer(400, {"error": "invalid character 'n' looking for beginning of value"})

    do_POST = do_GET  # noqa: N815 the name is http.server's

    def route(self, request: Body | None) -> None:
        if FAULT == "deaf":
            self.wait_for_the_end()
        match self.command, self.path, request:
            case "GET", "/api/version", _:
                self.answer(200, {"version": VERSION})
            case "GET", "/api/tags", _:
                self.answer(200, {"models": [listed(name) for name in MODELS]})
            case "GET", "/api/ps", _:
                self.answer(200, {"models": list(LOADED.values())})
            case "POST", "/api/show" | "/api/chat", None:
                self.answer(400, {"error": "missing request body"})
            case "POST", "/api/show", dict():
                name = known(request.get("model"))
                info = {"general.architecture": "fake", "fake.context_length": MODELS[name].get("context_length", 4096)}
                more: Body = {key: MODELS[name][key] for key in ("capabilities", "parameters") if key in MODELS[name]}
                self.answer(200, {"details": listed(name)["details"], "model_info": info, **more})
            case "POST", "/api/chat", dict():
                check(request)
                self.chat(request, request.get("messages") or [])
            case _:
                self.send_error(404)

    def chat(self, request: Body, messages: list[Body]) -> None:
        name, text = known(request["model"]), asked(messages)
        if order := re.fullmatch(r"\[error:(\d+):(.*)]", text, re.DOTALL):
            refuse(True, order[2], int(order[1]))
        unload = not messages and request.get("keep_alive") == 0
        with LOCK:
            if LOADED.pop(name, None) is None and ORDER.get("child") and not CHILDREN:
                CHILDREN.append(subprocess.Popen([sys.executable, "-ISc", "import time; time.sleep(3600)"]))
            context = (request.get("options") or {}).get("num_ctx", 4096)
            LOADED.update({} if unload else {name: listed(name) | {"expires_at": _DATE, "context_length": context}})
        if not messages:
            done = {"done": True, "done_reason": "unload" if unload else "load"}
            self.answer(200, {"model": name, "message": {"role": "assistant", "content": ""}, **done})
            return
        if text == "[silent]":
            self.wait_for_the_end()
        # The status and the headers come with the first line, when the model has begun to speak.
        self.head(200, "application/x-ndjson", "Transfer-Encoding", "chunked")
        for line in replies(request, "first" if text == "[hold]" else text):
            if line["done"] and text == "[cut]":
                break
            self.line(json.dumps(line).encode())
            if not line["message"]["content"]:
                continue
            if FAULT == "die_mid_chat":
                print("panic: the fake is broken", file=sys.stderr, flush=True)
                os._exit(3)
            match text:
                case "[hold]":
                    self.wait_for_the_end()
                case "[garbage]":
                    self.line(b"not json \xff")
                case "[break]":
                    self.line(b'{"error":"an error was encountered while running the model: unexpected EOF"}')
                    break
                case "[drop]":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    raise ConnectionResetError
        self.wfile.write(b"0\r\n\r\n")

    def wait_for_the_end(self) -> NoReturn:
        while not select.select([self.connection], [], [])[0] or self.connection.recv(1, socket.MSG_PEEK):
            time.sleep(0.02)
        raise ConnectionResetError

    def line(self, line: bytes) -> None:
        self.wfile.write(f"{len(line) + 1:x}\r\n".encode() + line + b"\n\r\n")

    def answer(self, status: int, body: Body) -> None:
        data = json.dumps(body).encode()
        self.head(status, "application/json; charset=utf-8", "Content-Length", str(len(data)))
        self.wfile.write(data)

    def head(self, status: int, kind: str, name: str, value: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header(name, value)
        self.end_headers()

    def note(self, method: str, body: Any) -> None:
        noted = {"method": method, "path": self.path, "body": body, "headers": dict(self.headers)}
        with LOCK, Path(ORDER.get("log", os.devnull)).open("a", encoding="utf-8") as log:
            log.write(json.dumps(noted) + "\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128


def place() -> tuple[str, int]:
    """Host and port in OLLAMA_HOST."""
    parts = urllib.parse.urlsplit("//" + os.environ.get("OLLAMA_HOST", "").rpartition("://")[2])
    return parts.hostname or "127.0.0.1", 11434 if parts.port is None else parts.port


def show_version() -> None:
    """Asks a running server first, and without any time limit."""
    try:
        connection = http.client.HTTPConnection(*place())
        connection.request("GET", "/api/version")
        running = json.loads(connection.getresponse().read())["version"]
    except OSError:
        running = ""
    print(f"ollama version is {running}" if running else "Warning: could not connect to a running Ollama instance")
    if running != VERSION:
        print(f"Warning: client version is {VERSION}")


def end(*_: Any) -> NoReturn:
    for child in CHILDREN:
        child.kill()
    os._exit(0)


def serve() -> None:
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if FAULT == "ignore_term" else end)
    if FAULT == "exit":
        sys.exit("Error: the fake is broken")
    while FAULT == "no_listen":
        time.sleep(3600)
    host, port = place()
    Server.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = Server((host, port), Handler)
    except OSError as error:
        sys.exit(f"Error: listen tcp {host}:{port}: bind: {os.strerror(error.errno or 0).lower()}")
    said = f"Listening on {host}:{server.socket.getsockname()[1]} (version {VERSION})"
    print(f'time={_DATE} level=INFO source=routes.go:1998 msg="{said}"', file=sys.stderr, flush=True)
    time.sleep(ORDER.get("slow_start", 0))
    server.serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--version" | "-v"]:
            show_version()
        case ["serve" | "start"]:
            serve()
        case other:
            sys.exit(f'Error: unknown command "{" ".join(other)}" for "ollama"')
