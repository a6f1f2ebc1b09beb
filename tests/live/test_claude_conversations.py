"""Many conversations at once with the real claude: whatever their clients do, none is mixed with another.

Each time the stand-in API answers with the digest of what it received, so an answer proves the whole request behind it.
"""

import os

from runners.providers.claude.provider import TESTED_VERSIONS
from runners.testing.apis.messages_api import Reply, text
from runners.testing.apis.stand_in import Json
from tests.conftest import real_cli
from tests.conversations import HOLD, talk
from tests.live.claude_body import digested, newest
from tests.live.claude_lab import claude_lab
from tests.world import Wire, World, until

_CONVERSATIONS = int(os.environ.get("RUNNERD_SOAK", "64")) // 8
"""Half as many as of the fake: each of them takes three seconds of a processor, nearly all of it for CLIs' starts."""
_IDLE_TTL_S = 3
_PIECE = 7


def answered(body: Json) -> Reply:
    """The digest, in pieces; where it is to be held, only the first of them."""
    [whole] = digested(body).blocks
    said = whole.whole["text"]
    reply = text(*(said[start : start + _PIECE] for start in range(0, len(said), _PIECE)))
    return reply.broken("stall", after=1) if newest(body).endswith(HOLD) else reply


async def test_no_conversation_is_mixed_with_another_whatever_their_clients_do(world: World) -> None:
    entry = {"warm": 1, "idle_ttl_s": _IDLE_TTL_S, "max_running": 48}
    at_once = 20 if _CONVERSATIONS > 20 else 4
    async with claude_lab(world, real_cli("claude", TESTED_VERSIONS[-1]), {"claude": entry}) as lab:
        lab.api.answer = answered

        async def connect() -> Wire:
            return await Wire.connect(world.socket)

        models = ["claude:sonnet", "claude:opus"]
        tally = await talk(connect, models, _CONVERSATIONS, at_once, rest_s=_IDLE_TTL_S)
        print(tally)
        assert tally.continued > 0.8

        async def only_a_blank_is_left() -> bool:
            workers = await lab.workers()
            return [worker["turns"] for worker in workers] == [0] and len(lab.clis()) == 1

        await until(only_a_blank_is_left)
