"""Faults of clients: what becomes of their chats, and of everybody else's."""

import asyncio
import json
import socket
import time

from tests.faults.chat import error_in_words
from tests.faults.entries import claude, echo
from tests.faults.fault import fault
from tests.faults.house import House
from tests.world import END_S, user

_BIG = "x" * 8_000_000
"""More than all the buffers on an answer's way hold."""


@fault("client disconnects mid-stream", sees="the next one: the whole answer", runners={"runner": claude()})
async def disconnects(house: House) -> str:
    chat = await house.begun("runner")
    await chat.hang_up()
    return f"the next one: {await house.chat('runner')}"


@fault(
    "client stops reading for a minute, while others chat",
    sees="the whole answer; the others: the whole answer",
    runners={"echo": echo()},
    slow="it takes its minute; the tries run at the same time",
    at_once=True,
)
async def stops_reading(house: House) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(house.world.socket))
        client.settimeout(END_S)
        params = {"model": "echo", "messages": user(_BIG)}
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "chat", "params": params}).encode() + b"\n"
        await asyncio.to_thread(client.sendall, line)
        ends_s = time.monotonic() + house.sized(60, 2)
        others = set()
        while time.monotonic() < ends_s:
            others.add(await house.chat("echo"))
            await asyncio.sleep(0.2)
        return f"{await asyncio.to_thread(_read, client)}; the others: {'; '.join(sorted(others))}"


def _read(client: socket.socket) -> str:
    with client.makefile("rb") as lines:
        for line in lines:
            message = json.loads(line)
            if "result" in message:
                return "the whole answer" if message["result"]["content"] == _BIG else "another answer"
            if "error" in message:
                return f"error {error_in_words(message['error'])}"
    return "the connection closes"


@fault(
    "200 clients connect and vanish",
    sees="the next one: the whole answer",
    runners={"echo": echo()},
)
async def vanish(house: House) -> str:
    sent = [b"", b"\n", b'{"jsonrpc": "2.0", "id"', b'{"jsonrpc":"2.0","id":1,"method":"status"}\n', b"nonsense\n"]
    for number in range(200):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(house.world.socket))
            client.sendall(sent[number % len(sent)])
    return f"the next one: {await house.chat('echo')}"
