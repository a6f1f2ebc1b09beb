"""Programs that stand in for the vendors' CLIs where the daemon alone is measured."""

NO_API = "http://127.0.0.1:9"
"""Where nobody listens: what stands in for a CLI calls no API."""

CLAUDE = """
import json, sys

DELTAS = 5_000

def line(event):
    return json.dumps(event, separators=(",", ":")) + "\\n"

def event(inner):
    return line({"type": "stream_event", "event": inner, "session_id": "s", "parent_tool_use_id": None, "uuid": "u"})

def delta(index):
    piece = {"type": "text_delta", "text": f"1.{index} "}
    return event({"type": "content_block_delta", "index": 0, "delta": piece})

TEXT = "".join(f"1.{index} " for index in range(DELTAS))
USAGE = {"input_tokens": 1, "output_tokens": 1}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "fake", "content": [], "usage": USAGE}
HEAD = (
    line({"type": "system", "subtype": "init", "session_id": "s", "model": "fake"})
    + event({"type": "message_start", "message": MESSAGE})
    + event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
)
WHOLE = line({"type": "assistant", "message": {**MESSAGE, "content": [{"type": "text", "text": TEXT}]}})
RESULT = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "result": TEXT, "usage": USAGE,
          "stop_reason": "end_turn", "session_id": "s", "total_cost_usd": 0.0}
TAIL = (
    event({"type": "content_block_stop", "index": 0})
    + event({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE})
    + event({"type": "message_stop"})
    + line(RESULT)
)
ANSWER = HEAD + "".join(map(delta, range(DELTAS))) + WHOLE + TAIL

def write(text):
    sys.stdout.write(text)
    sys.stdout.flush()

if "--version" in sys.argv:
    write("2.1.329 (Claude Code)\\n")
elif sys.argv[1:2] == ["auth"]:
    write('{"loggedIn": true, "authMethod": "api_key"}\\n')
elif "--input-format" not in sys.argv:
    write(ANSWER)
else:
    for asked in sys.stdin:
        asked = json.loads(asked)
        if asked["type"] == "control_request":
            answer = {"subtype": "success", "request_id": asked["request_id"]}
            write(line({"type": "control_response", "response": answer}))
        elif asked["type"] == "user" and asked.get("shouldQuery") is False:
            write(line({**RESULT, "num_turns": 0, "result": ""}))
        elif asked["type"] == "user":
            write(ANSWER)
"""
"""A claude that answers everything with DELTAS deltas, as fast as a pipe takes them."""

STAMPING = """
import json, os, sys, time

SECONDS = 4.0
A_SECOND = 50

def emit(text):
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()

for line in sys.stdin:
    kind = json.loads(line)["type"]
    if kind == "start":
        emit('{"type": "ready"}')
    elif kind == "turn":
        emit('{"type": "begin", "id": "stamping-1", "model": "echo"}')
        emit('{"type": "delta", "text": "waiting "}')
        while not os.path.exists(sys.argv[0] + ".go"):
            time.sleep(0.01)
        # Not all at the same moment: as many programs do, that know nothing of each other.
        begins = time.monotonic() + os.getpid() % 20 / 1000
        for number in range(1, int(SECONDS * A_SECOND) + 1):
            time.sleep(max(0.0, begins + number / A_SECOND - time.monotonic()))
            emit('{"type": "delta", "text": "%.6f "}' % time.monotonic())
        emit('{"type": "usage", "input_tokens": 1, "output_tokens": 1}')
        emit('{"type": "end", "reason": "end"}')
"""
"""An echo CLI that says `waiting`, and what time it is 50 times a second once there is a file with `.go` behind its
name. The clock is the same for every process of the machine."""

TEE = """
import json, os, re, subprocess, sys
from pathlib import Path

BINARY = None

if "--version" in sys.argv or "auth" in sys.argv:
    os.execv(BINARY, [BINARY, *sys.argv[1:]])
log = Path(sys.argv[0] + ".sizes")
child = subprocess.Popen([BINARY, *sys.argv[1:]], stdin=subprocess.PIPE)
while data := os.read(0, 1 << 20):
    size = len(data)
    # A conversation that is told by a file beside the line.
    for directory in re.findall(rb'"configDir": ?"([^"]+)"', data):
        size += sum(path.stat().st_size for path in Path(directory.decode()).rglob("events.jsonl"))
    with log.open("a") as file:
        file.write(f"{size}\\n")
    child.stdin.write(data)
    child.stdin.flush()
child.stdin.close()
sys.exit(child.wait())
"""
"""The CLI named BINARY, with the size of everything that it is sent written to a file beside this program."""


def with_value(source: str, name: str, value: object) -> str:
    """The program with another value of one of its constants."""
    head, found, rest = source.partition(f"\n{name} = ")
    assert found, name
    return f"{head}{found}{value!r}\n{rest.partition(chr(10))[2]}"
