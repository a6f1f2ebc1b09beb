"""A session of the agent's own: the conversation as the agent has it.

It lives on from turn to turn as long as each of them ends well. The protocol takes no message back and adds none of the
past: whoever has another conversation begins another session.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from runners.errors import ModelNotFoundError, RunnerError
from runners.messages import ModelInfo
from runners.providers.acp.events import AcpInbox
from runners.translator import Event
from runners.wire.jsonrpc import RpcError

if TYPE_CHECKING:
    from runners.providers.acp.agent import AcpAgent
    from runners.providers.acp.tool_server import ToolServer


class AgentSession:
    """One session in the agent, from `session/new`, of which `told` is the result, to its end.

    `holds` is how many messages of its conversation the agent knows. `model` is the one that answers in it, as far as
    the agent says, and `models` are those that it lists, with what they are called.
    """

    def __init__(self, agent: "AcpAgent", told: Event, tools: "ToolServer | None" = None) -> None:
        self.id: str = told["sessionId"]
        self.inbox = AcpInbox()
        self.holds = 0
        self.cost_usd = 0.0
        self.is_spent = False
        """It was asked to stop, or is no longer ours: no other turn may follow."""
        self.tools = tools
        self._agent = agent
        self._prompt: asyncio.Task[None] | None = None
        self._is_said = asyncio.Event()
        self._model_option: str | None = None
        self.model: str | None = None
        self.models: list[ModelInfo] = []
        self.knows_past = asyncio.Event()
        """The agent has told us all that it found of a session's past."""
        self._past_untold = 0
        self.read_models(told)

    def read_models(self, told: Event) -> None:
        """The models, in either of the protocol's two forms: the older is `models`, the newer a config option."""
        for option in told.get("configOptions") or []:
            if option.get("category") == "model" and option.get("type") == "select":
                self._model_option, self.model = option["id"], option["currentValue"]
                # Some have groups of them.
                flat = [one for entry in option["options"] for one in entry.get("options", [entry])]
                self.models = [ModelInfo(one["value"]) for one in flat]
                return
        if listed := told.get("models"):
            self.model = listed["currentModelId"]
            self.models = [ModelInfo(one["modelId"]) for one in listed["availableModels"]]

    def await_past(self, messages: int) -> None:
        """So many messages are to be heard, each as a whole, before `knows_past`."""
        self._past_untold = messages
        if messages == 0:
            self.knows_past.set()

    def hear(self, event: Event) -> None:
        """Takes what the agent tells of this session."""
        if self._past_untold and event["type"] in ("user_message_chunk", "agent_message_chunk"):
            self._past_untold -= 1
            if self._past_untold == 0:
                self.knows_past.set()
        self.inbox.put(event)

    async def choose(self, model: str) -> None:
        """Has another model answer; ModelNotFoundError where the agent does not take it."""
        if model == self.model:
            return
        if not self.models:
            raise ModelNotFoundError(f"the agent lets nobody choose its model, and so not {model!r}")
        method, params = "session/set_model", {"sessionId": self.id, "modelId": model}
        if self._model_option is not None:
            method = "session/set_config_option"
            params = {"sessionId": self.id, "configId": self._model_option, "value": model}
        try:
            await self._agent.call(method, params)
        except RunnerError as error:
            if error.kind in ("process_exited", "not_authenticated", "auth_expired"):
                raise
            known = ", ".join(info.model for info in self.models)
            raise ModelNotFoundError(f"the agent refused {model!r}: {error.message}; it lists {known}") from error
        self.model = model

    @property
    def is_busy(self) -> bool:
        """Whether the agent works on a prompt."""
        return self._prompt is not None and not self._prompt.done()

    def say(self, blocks: list[dict[str, Any]]) -> None:
        """Begins to send a prompt. What comes of it, its result or failure at last, is in the inbox."""
        self.inbox.begin()
        self._is_said.clear()
        self._prompt = asyncio.create_task(self._ask(blocks), name=f"acp-prompt-{self.id}")

    async def _ask(self, blocks: list[dict[str, Any]]) -> None:
        self._is_said.set()
        try:
            result = await self._agent.ask(self.id, blocks)
        except RpcError as error:
            told = {"code": error.code, "message": str(error), "data": error.data, "hint": self._agent.login_hint}
            self.inbox.put({"type": "failed", **told})
        except RunnerError as error:
            self.inbox.fail(error)
        else:
            self.inbox.put({**(result if isinstance(result, dict) else {}), "type": "result"})

    async def called(self, call_id: str, name: str, arguments: dict[str, Any]) -> bool:
        """The agent calls a tool of the client's, whom it reaches in a turn alone: whether it does.

        What the agent has said before is on its way in another pipe.
        """
        await self._agent.catch_up()
        if not self.inbox.is_open or self.is_spent:
            return False
        self.inbox.put({"type": "called", "id": call_id, "name": name, "arguments": arguments})
        return True

    def rest(self, *, awaits_results: bool) -> None:
        """Its turn has ended well, or waits for results: then the agent is still in it, and may tell of that."""
        if not awaits_results:
            self.inbox.end()

    async def interrupt(self) -> None:
        """Asks the agent to stop what it works on; the prompt's result then says `cancelled`."""
        self.is_spent = True
        if self.is_busy:
            await self._is_said.wait()  # it is written in the same step: a cancel must not overtake it
            await self._agent.notify("session/cancel", {"sessionId": self.id})

    async def end(self) -> None:
        """Stops what the agent still does here, and lets it forget the session if it can."""
        self.inbox.end()
        await self.interrupt()
        if self._prompt is not None:
            await asyncio.wait([self._prompt])
        if self._agent.closes_sessions and not self._agent.is_gone:
            await self._agent.call("session/close", {"sessionId": self.id})

    async def aclose(self) -> None:
        """Waits for nothing more. A call of a tool that is still open is given up only now: it gets no answer."""
        if self._prompt is not None:
            self._prompt.cancel()
        if self.tools is not None:
            await self.tools.aclose()
