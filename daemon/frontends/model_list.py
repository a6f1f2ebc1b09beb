"""/v1/models, in a form that the clients of OpenAI and those of Anthropic both read."""

from typing import Any

from aiohttp import web

from daemon.frontends.exchange import json_response
from daemon.service import Service
from runners.errors import ModelNotFoundError

_UNKNOWN_DATE = "1970-01-01T00:00:00Z"


class ModelList:
    """Every model that can be asked for, by the name to ask with."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Answers at its paths."""
        router.add_get("/v1/models", self._all)
        router.add_get("/v1/models/{id:.+}", self._one)

    async def _entries(self) -> list[dict[str, Any]]:
        told = await self._service.models()
        return [_entry(row) for row in told["models"]]

    async def _all(self, _request: web.Request) -> web.Response:
        entries = await self._entries()
        ids = [entry["id"] for entry in entries] or [None]
        listed = {"object": "list", "data": entries, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}
        return json_response(listed)

    async def _one(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        for entry in await self._entries():
            if entry["id"] == wanted:
                return json_response(entry)
        raise ModelNotFoundError(f"there is no model {wanted!r}", hint="GET /v1/models lists them")


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "model",
        "created": 0,
        "owned_by": row["runner"] or "runnerd",
        "type": "model",
        "display_name": row["id"],
        "created_at": _UNKNOWN_DATE,
        "context_window": row["context_window"],
        "max_output_tokens": row["max_output_tokens"],
        "max_input_tokens": row["context_window"],
        "max_tokens": row["max_output_tokens"],
    }
