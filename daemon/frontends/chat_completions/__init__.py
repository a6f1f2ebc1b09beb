"""OpenAI's chat completions: `POST /v1/chat/completions`."""

from typing import Any

from daemon.frontends import openai
from daemon.frontends.chat_completions.answer import CompletionAnswer
from daemon.frontends.chat_completions.request import CompletionRequest
from daemon.frontends.exchange import Answer, Dialect
from daemon.frontends.incoming import checked
from runners.errors import RunnerError

__all__ = ["ChatCompletions"]


class ChatCompletions(Dialect):
    """The API that most editors and scripts speak."""

    def read(self, body: Any) -> Answer:
        asked = checked(CompletionRequest, body)
        request, warnings = asked.ours()
        return CompletionAnswer(request, warnings, tells_usage=asked.tells_usage)

    def error(self, status: int, message: str, error: RunnerError | None) -> dict[str, Any]:
        return openai.error_body(status, message, error)
