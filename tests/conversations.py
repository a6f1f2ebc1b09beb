"""Clients that keep their conversations themselves, as editors do, and know what each answer must be.

They talk to stand-ins that answer with the digest of exactly what they were told. So an answer is right when it is the
digest of what its client asked, and no other: a word of another conversation, or one too many, and it is not.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.fake_claude import digest
from tests.world import Wire, assistant, system, user

Connect = Callable[[], Awaitable[Wire]]
Message = dict[str, Any]

HOLD = "[hold]"
"""What a message ends with that is answered with the beginning of its digest, and no more."""
_TURNS = 6
_MESSAGES = 14
"""About as many as an answer has."""
_PATIENCE_S = 120.0
"""For 20 CLIs that may start at once on a busy machine."""
_SYSTEMS = ("", "Be brief.", "You are a poet.\nRhyme.")
_COMMON = ("Hi", "go on", "why?")
"""What many say: their conversations are the same for a while, and then not."""


@dataclass
class Tally:
    """What was done, how every answer was served, and how those to the follow-ups that nothing had come between."""

    done: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    followed: Counter[str] = field(default_factory=Counter)

    @property
    def continued(self) -> float:
        """The share of those follow-ups that went to the session which holds their conversation."""
        return self.followed["continued"] / self.followed.total()


async def talk(connect: Connect, models: Sequence[str], conversations: int, at_once: int, *, rest_s: float) -> Tally:
    """Holds so many conversations of 6 turns; fails at the first answer that is not right, and tells the seed.

    `rest_s` is about how long a session is kept: some clients come back just then.
    """
    seed = random.randrange(2**32)
    tally = Tally()
    queue = [random.Random(f"{seed} {number}") for number in range(conversations)]

    async def client() -> None:
        while queue:
            await _Client(connect, models, queue.pop(), tally, rest_s).converse()

    clients = [asyncio.create_task(client()) for _ in range(at_once)]
    try:
        await asyncio.gather(*clients)
    except Exception as error:
        error.add_note(f"seed {seed}, behind {tally}")
        raise
    finally:
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    return tally


class _Client:
    """One client and its one conversation."""

    def __init__(
        self, connect: Connect, models: Sequence[str], randomness: random.Random, tally: Tally, rest_s: float
    ) -> None:
        self._connect = connect
        self._random = randomness
        self._tally = tally
        self._rest_s = rest_s
        self._model = randomness.choice(models)
        self._system = randomness.choice(_SYSTEMS)
        self._history: list[Message] = []
        self._is_undisturbed = False
        self._wire: Wire

    async def converse(self) -> None:
        """The whole conversation; it begins and ends with answers in full."""
        self._wire = await self._connected()
        try:
            await self._follow_up()
            for _ in range(_TURNS - 2):
                await self._random.choices(
                    (self._follow_up, self._cancel, self._edit, self._regenerate, self._fork, self._come_back),
                    (60, 14, 8, 6, 8, 4),
                )[0]()
            await self._follow_up()
        finally:
            await self._wire.close()

    async def _connected(self) -> Wire:
        wire = await self._connect()
        wire.patience_s = _PATIENCE_S
        return wire

    # What clients do

    async def _follow_up(self) -> None:
        is_undisturbed = self._is_undisturbed
        served = await self._answered([*self._history, *user(self._text())])
        self._tally.done["followed up"] += 1
        if is_undisturbed:
            self._tally.followed[served] += 1

    async def _cancel(self) -> None:
        """Stops an answer, in its middle or wherever it is by then, and keeps what there is of it, or nothing."""
        is_held = self._random.random() < 0.7
        asked = [*self._history, *user(self._text() + (HOLD if is_held else ""))]
        ends_behind = self._random.randrange(3 if is_held else _MESSAGES)
        leaves = self._random.random() < 0.4
        partial, is_whole = await self._stopped(asked, ends_behind, leaves=leaves)
        self._tally.done["came too late to stop it" if is_whole else "left" if leaves else "cancelled"] += 1
        if is_whole or (partial and self._random.random() < 0.5):
            self._tally.done["kept a part"] += not is_whole
            self._history = [*asked, assistant(partial)]
        self._is_undisturbed = is_whole

    async def _edit(self) -> None:
        """Changes something that was said; what came behind it is dropped, or stays as it was."""
        index = self._random.choice([i for i, message in enumerate(self._history) if message["role"] == "user"])
        edited = user(self._text())
        if self._random.random() < 0.5:
            await self._answered([*self._history[:index], *edited])
        else:
            await self._answered([*self._history[:index], *edited, *self._history[index + 1 :], *user(self._text())])
        self._tally.done["edited"] += 1

    async def _regenerate(self) -> None:
        """Asks for the last answer once more."""
        if not self._history[-2]["content"].endswith(HOLD):
            await self._answered(self._history[:-1])
            self._tally.done["regenerated"] += 1

    async def _fork(self) -> None:
        """Goes on in two ways at the same time, and then in one of them."""
        other = _Client(self._connect, [self._model], self._random, self._tally, self._rest_s)
        other._system = self._system
        other._history = self._history
        other._wire = await self._connected()
        ways = [[*self._history, *user(self._text())] for _ in range(2)]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._answered(ways[0]))
                group.create_task(other._answered(ways[1]))
        finally:
            await other._wire.close()
        self._history = self._random.choice((self, other))._history
        self._tally.done["forked"] += 1

    async def _come_back(self) -> None:
        """Goes on when the session is just being closed, or a moment before or behind that."""
        await asyncio.sleep(self._rest_s * self._random.uniform(0.95, 1.05))
        await self._answered([*self._history, *user(self._text())])
        self._tally.done["came back"] += 1

    def _text(self) -> str:
        unique = f"{self._random.getrandbits(32):08x}"
        odd = (f"/clear {unique}", f" {unique}\n\n@{unique} \U0001f600 ", unique * 500)
        return self._random.choice((*_COMMON, unique, *odd))

    # How they ask

    async def _answered(self, asked: list[Message]) -> str:
        """Asks for an answer in full, which must be right; how it was served."""
        response = (await self._wire.read_until_response(await self._ask(asked)))[1]
        assert "result" in response, f"asked {_shown(asked)}: {response}"
        result = response["result"]
        self._proves(asked, result["content"])
        self._tally.served[result["served"]] += 1
        self._history = [*asked, assistant(result["content"])]
        self._is_undisturbed = True
        return str(result["served"])

    async def _stopped(self, asked: list[Message], ends_behind: int, *, leaves: bool) -> tuple[str, bool]:
        """What there was of an answer when it was stopped behind so many of its messages, and whether it was whole."""
        request_id = await self._ask(asked)
        partial = ""
        read = 0
        while True:
            if read == ends_behind:
                if leaves:
                    await self._wire.close()
                    self._wire = await self._connected()
                    return partial, False
                await self._wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": request_id}})
            message = await self._wire.read()
            read += 1
            if "result" in message:
                self._proves(asked, message["result"]["content"])
                return message["result"]["content"], True
            if "error" in message:
                assert message["error"]["data"]["kind"] == "cancelled", f"asked {_shown(asked)}: {message}"
                return partial, False
            chunk = message["params"]["chunk"]
            partial += chunk["chunk"] if chunk["type"] == "text" else ""
            right = self._right(asked)
            assert right.startswith(partial), f"asked {_shown(asked)}: {partial} is no beginning of {right}"

    async def _ask(self, asked: list[Message]) -> int:
        prompt = system(self._system) if self._system else []
        return await self._wire.request("chat", model=self._model, messages=[*prompt, *map(self._sent, asked)])

    def _sent(self, message: Message) -> Message:
        """A message as it is sent: sometimes its text is in two parts, which changes nothing."""
        text = message["content"]
        if len(text) < 2 or self._random.random() < 0.7:
            return message
        cut = self._random.randrange(1, len(text))
        return message | {"content": [{"type": "text", "text": part} for part in (text[:cut], text[cut:])]}

    def _right(self, asked: list[Message]) -> str:
        return digest(self._system, [(message["role"], message["content"]) for message in asked])

    def _proves(self, asked: list[Message], content: str) -> None:
        right = self._right(asked)
        assert content == right, f"asked {_shown(asked)}: answered {content}, and right is {right}"


def _shown(asked: list[Message]) -> list[str]:
    return [f"{message['role']}: {message['content'][:40]}" for message in asked]
