"""What the HTTP door adds to a chat over what the daemon's other door takes, and to the time of its first token.

An echo that is warm answers with a few words: of such a chat the door is the largest part.
"""

import json
import socket
import time
from collections.abc import Iterator

from tests.bench.figures import Row
from tests.bench.house import House, calm, open_house, open_world
from tests.bench.reading import Timing, blocks
from tests.bench.size import Size
from tests.bench.targets import RPC, SMALL_FIRST, SMALL_TOTAL
from tests.world import user

GROUP = "http"

_CHATS = 5
"""Of each in a run, by turns; the run is their median."""

_PATHS = {"completions": "/v1/chat/completions", "messages": "/v1/messages"}
_TEXT = "Say what I said."


class _Client:
    """A connection to the daemon's HTTP socket, as lean as that of the other door. `served` is as the last chat was."""

    def __init__(self, house: House, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(house.world.socket.with_name("http.sock")))
        self._blocks = blocks(self._socket.fileno())
        body = json.dumps({"model": "echo", "max_tokens": 100, "stream": True, "messages": user(_TEXT)})
        self.served = ""
        self._request = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def close(self) -> None:
        self._socket.close()

    def chat(self) -> Timing:
        """A chat to the end of its answer, the last chunk of which is empty."""
        began_s = time.monotonic()
        self._socket.sendall(self._request)
        first_s, told = 0.0, b""
        for block in self._blocks:
            told += block
            if not first_s and (b'"content":"Say' in told or b'"text":"Say' in told):
                first_s = time.monotonic()
            if told.endswith(b"\r\n0\r\n\r\n"):
                break
        ended_s = time.monotonic()
        assert told.startswith(b"HTTP/1.1 200 "), told
        self.served = told.partition(b"x-runnerd-served: ")[2].partition(b"\r\n")[0].decode()
        return Timing(first_s - began_s, ended_s - began_s)


def measure(size: Size) -> Iterator[Row]:
    with open_world() as world, open_house(world, {"echo": {"kind": "echo"}}) as house:
        for name, path in _PATHS.items():
            yield from _compared(size, house, name, path)


def _compared(size: Size, house: House, name: str, path: str) -> list[Row]:
    rows = [Row(GROUP, name, what, RPC, "ms") for what in (SMALL_FIRST, SMALL_TOTAL)]
    web = _Client(house, path)
    try:
        with house.client() as rpc:
            for _ in range(3):  # what is loaded at first use
                web.chat()
                rpc.chat(user(_TEXT), model="echo")
            for _ in size.rounds():
                calm(house.world)
                ours, theirs = [], []
                for turn in range(_CHATS):
                    # Nobody is always the first.
                    for is_ours in (True, False) if turn % 2 else (False, True):
                        house.ready("echo")
                        if is_ours:
                            ours.append(web.chat())
                        else:
                            theirs.append(rpc.chat(user(_TEXT), model="echo").timing)
                for index, row in enumerate(rows):
                    row.add(_middle_ms(ours, index), _middle_ms(theirs, index), web.served)
    finally:
        web.close()
    return rows


def _middle_ms(timings: list[Timing], index: int) -> float:
    return sorted(timing[index] for timing in timings)[len(timings) // 2] * 1000
