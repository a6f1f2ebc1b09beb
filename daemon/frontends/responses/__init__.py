"""OpenAI's Responses: `POST /v1/responses`. Nothing is stored: a client sends the whole conversation each time."""

from typing import Any

from daemon.frontends import openai
from daemon.frontends.exchange import Answer, Dialect, event
from daemon.frontends.incoming import checked
from daemon.frontends.responses.answer import ResponsesAnswer
from daemon.frontends.responses.request import ResponsesRequest
from runners.errors import RunnerError

__all__ = ["Responses"]


class Responses(Dialect):
    """The API that the Codex CLI speaks."""

    # As OpenAI does it. Codex gives up where no event comes for long, and a comment is none.
    ping = event({"type": "keepalive"}, "keepalive")

    def read(self, body: Any) -> Answer:
        asked = checked(ResponsesRequest, body)
        request, warnings = asked.ours()
        return ResponsesAnswer(request, warnings, said=body, offered=asked.offered)

    def error(self, status: int, message: str, error: RunnerError | None) -> dict[str, Any]:
        return openai.error_body(status, message, error)
