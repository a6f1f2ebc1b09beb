"""`runnerd acp`: the Agent Client Protocol on stdin and stdout, for editors. It stands on the socket's client.

`editor` is the line to the editor, `uses` the way to the daemon, `agent` what the editor may ask for, `turn` one
prompt, `hands` the tools that the editor lends to the model, `content` a conversation in the words of both sides,
`models` what can be chosen, `store` the conversations on disk.
"""

import asyncio
from pathlib import Path
from typing import cast

import acp

from daemon.acp.agent import Agent
from daemon.acp.editor import Editor
from daemon.acp.store import Store
from daemon.acp.uses import Daemon
from daemon.output import warn
from daemon.paths import state_directory


def serve(socket: Path, *, model: str | None, start: bool) -> None:
    """Serves the editor until it ends our stdin, or reads our stdout no more. Then all that runs for it is ended.

    `model` is who answers in new sessions; without it that is for the daemon to say. `start` allows to start one.
    """
    asyncio.run(_serve(Agent(Daemon(socket, start=start, warn=warn), Store(state_directory()), model)))


async def _serve(agent: Agent) -> None:
    # What the protocol calls optional is left out of ours, and answered as unknown.
    await acp.run_agent(cast("acp.Agent", agent), await Editor.on_stdio())
