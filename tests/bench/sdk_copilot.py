"""`python -m tests.bench.sdk_copilot ORDER`: chats through github-copilot-sdk, as its documentation shows it."""

import asyncio
import json
import sys
import time
from typing import Any

from copilot import CopilotClient, RuntimeConnection

from tests.bench.reading import Timing
from tests.bench.sdk import told
from tests.bench.way import TURNS, prompt

Json = dict[str, Any]


async def _turn(session: Any, turn: int, began_s: float) -> Timing:
    first_s = 0.0

    def heard(event: Any) -> None:
        nonlocal first_s
        if event.type.value == "assistant.message_delta":
            first_s = first_s or time.monotonic()

    forget = session.on(heard)
    await session.send_and_wait(prompt(turn))
    forget()
    assert first_s
    return Timing(first_s - began_s, time.monotonic() - began_s)


async def _conversation(order: Json, turns: int) -> Timing:
    """Its last turn; the first one's time counts from the start of the client."""
    began_s = time.monotonic()
    async with CopilotClient(
        connection=RuntimeConnection.for_stdio(path=order["binary"]), working_directory=order["cwd"]
    ) as client:
        session = await client.create_session(model=order["model"], provider=order["provider"], streaming=True)
        for turn in range(1, turns + 1):
            began_s = began_s if turn == 1 else time.monotonic()
            timing = await _turn(session, turn, began_s)
    return timing


def main() -> None:
    order = json.loads(sys.argv[1])
    told("ready")
    for line in sys.stdin:
        turns = 1 if json.loads(line)["do"] == "new" else TURNS
        told(asyncio.run(_conversation(order, turns))._asdict())


if __name__ == "__main__":
    main()
