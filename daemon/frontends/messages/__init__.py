"""Anthropic's Messages: `POST /v1/messages`, and `/v1/messages/count_tokens`."""

from typing import Any

from daemon.frontends.exchange import Answer, Dialect, event
from daemon.frontends.incoming import checked
from daemon.frontends.messages.answer import MessagesAnswer, error_body
from daemon.frontends.messages.request import MessagesRequest
from runners.errors import RunnerError
from runners.messages import ChatRequest, ImagePart
from runners.wire.framing import dump_json

__all__ = ["Messages", "counted"]

_BYTES_A_TOKEN = 4
_IMAGE_TOKENS = 1600  # of one as large as the API lets it be


class Messages(Dialect):
    """The API that Claude Code and Anthropic's own clients speak."""

    ping = event({"type": "ping"}, "ping")

    def read(self, body: Any) -> Answer:
        request, warnings = checked(MessagesRequest, body).ours()
        return MessagesAnswer(request, warnings)

    def error(self, status: int, message: str, error: RunnerError | None) -> dict[str, Any]:
        return error_body(status, message, error)


def counted(body: Any) -> dict[str, Any]:
    """How many tokens a request is, as near as its length tells: no CLI counts without asking its model."""
    request, _ = checked(MessagesRequest, body).ours()
    size_bytes = sum(len(dump_json(tool.model_dump())) for tool in request.tools)
    size_bytes += sum(len(text.encode(errors="surrogatepass")) for text in _texts(request))
    images = sum(isinstance(part, ImagePart) for message in request.messages for part in message.parts)
    return {"input_tokens": -(-size_bytes // _BYTES_A_TOKEN) + images * _IMAGE_TOKENS, "is_estimate": True}


def _texts(request: ChatRequest) -> list[str]:
    return [
        text
        for message in request.messages
        for text in (message.text, *(f"{call.name}{call.arguments}" for call in message.tool_calls))
    ]
