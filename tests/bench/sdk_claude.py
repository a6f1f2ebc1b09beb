"""`python -m tests.bench.sdk_claude ORDER`: chats through claude-agent-sdk, as its documentation shows it."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, ResultMessage, StreamEvent, query

from tests.bench.reading import Timing
from tests.bench.sdk import told
from tests.bench.way import TURNS, prompt


async def _timed(messages: AsyncIterator[Any], began_s: float) -> Timing:
    first_s = ended_s = 0.0
    async for message in messages:
        if isinstance(message, StreamEvent) and message.event["type"] == "content_block_delta":
            first_s = first_s or time.monotonic()
        elif isinstance(message, ResultMessage):
            ended_s = time.monotonic()
    assert first_s
    return Timing(first_s - began_s, ended_s - began_s)


async def _new(options: ClaudeAgentOptions) -> Timing:
    return await _timed(query(prompt=prompt(1), options=options), time.monotonic())


async def _sixth(options: ClaudeAgentOptions) -> Timing:
    async with ClaudeSDKClient(options=options) as client:
        for turn in range(1, TURNS + 1):
            began_s = time.monotonic()
            await client.query(prompt(turn))
            timing = await _timed(client.receive_response(), began_s)
    return timing


def main() -> None:
    order = json.loads(sys.argv[1])
    options = ClaudeAgentOptions(
        cli_path=order["binary"], model=order["model"], cwd=order["cwd"], include_partial_messages=True
    )
    told("ready")
    for line in sys.stdin:
        does = _new if json.loads(line)["do"] == "new" else _sixth
        told(asyncio.run(does(options))._asdict())


if __name__ == "__main__":
    main()
