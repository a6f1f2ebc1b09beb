"""The official clients of OpenAI and Anthropic, on the daemon of a lab: over its socket, or over TCP with the token."""

from typing import Any, Literal

import anthropic
import openai
from httpx2 import AsyncHTTPTransport

from tests.live.lab import Lab

Door = Literal["unix", "tcp"]
NO_RETRIES: dict[str, Any] = {"max_retries": 0}


def openai_client(lab: Lab, door: Door, **options: Any) -> openai.AsyncOpenAI:
    """As its user would make it."""
    if door == "tcp":
        return openai.AsyncOpenAI(base_url=f"{lab.url}/v1", **{"api_key": lab.token} | options)
    http = openai.DefaultAsyncHttpxClient(transport=AsyncHTTPTransport(uds=str(lab.http_socket)))
    return openai.AsyncOpenAI(base_url="http://runnerd/v1", api_key="none", http_client=http, **options)


def anthropic_client(lab: Lab, door: Door, **options: Any) -> anthropic.AsyncAnthropic:
    """As its user would make it."""
    if door == "tcp":
        return anthropic.AsyncAnthropic(base_url=lab.url, **{"api_key": lab.token} | options)
    http = anthropic.DefaultAsyncHttpxClient(transport=AsyncHTTPTransport(uds=str(lab.http_socket)))
    return anthropic.AsyncAnthropic(base_url="http://runnerd", api_key="none", http_client=http, **options)
