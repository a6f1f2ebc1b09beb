"""The official clients of OpenAI and Anthropic, on the daemon of a lab: over its socket, or over TCP with the token."""

from typing import Any, Literal

import anthropic
import openai
import pytest
from httpx2 import AsyncHTTPTransport

from tests.live.lab import Lab

Door = Literal["unix", "tcp"]
BOTH_DOORS = pytest.mark.parametrize("door", ["unix", "tcp"])
"""For tests of what a door may change: a body, a stream, its end, and the head of an error."""

HI: Any = [{"role": "user", "content": "hi"}]
WRONG: Any = [{"role": "user", "content": 3}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CITY: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
USAGE = {"input_tokens": 100, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 10, "output_tokens": 42}


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
