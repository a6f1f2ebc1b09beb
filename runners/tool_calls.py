"""The tool calls of an answer: from the pieces of their arguments, as a vendor streams them, to whole calls.

Owns how arguments are read and checked, the same for every runner: nothing is mended. Pure, no I/O.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runners.stream import (
    ChatChunk,
    SurrogateJoiner,
    ToolRequestArg,
    ToolRequestComplete,
    ToolRequestStart,
    Warn,
)
from runners.tools import ToolCall, ToolDefinition
from runners.wire.framing import parse_json_exactly

if TYPE_CHECKING:
    from jsonschema_rs import Validator

_MISFIT_CHARACTERS = 300


@dataclass(slots=True)
class _Open:
    id: str
    name: str
    pieces: list[str] = field(default_factory=list)
    joiner: SurrogateJoiner = field(default_factory=SurrogateJoiner)


class ToolCalls:
    """The calls of one answer, of tools that were `offered`. `made` are those that are whole.

    The chunks of a call, by its `call_id`: `begin`, `add` for each piece of the JSON text of its arguments, `end`.
    """

    def __init__(self, offered: Sequence[ToolDefinition] = ()) -> None:
        self.made: list[ToolCall] = []
        self._schemas = {tool.name: tool.parameters for tool in offered}
        self._open: dict[str, _Open] = {}
        self._begun: list[str] = []

    def is_known(self, call_id: str) -> bool:
        """Whether the call has begun."""
        return call_id in self._begun

    @property
    def ids(self) -> frozenset[str]:
        """Those of the calls that are whole."""
        return frozenset(call.id for call in self.made)

    @property
    def are_all_ours(self) -> bool:
        """Whether every call is one that a CLI can ask its host for.

        That is one of a tool that was offered, with an object of whole characters, and an id of its own.
        """
        return len(set(self._begun)) == len(self._begun) and all(
            call.name in self._schemas and call.arguments_raw is None and not _has_halves(call.arguments)
            for call in self.made
        )

    def begin(self, call_id: str, name: str) -> Iterator[ChatChunk]:
        """The model calls the tool of this name, which is the client's. An id that it has used becomes another."""
        before = self._begun.count(call_id)
        self._begun.append(call_id)
        call = self._open[call_id] = _Open(f"{call_id}-{before + 1}" if before else call_id, name)
        yield ToolRequestStart(call.id, name)
        if name not in self._schemas:
            yield Warn(f"the model calls a tool {name!r}, which it was not offered")

    def add(self, call_id: str, piece: str) -> Iterator[ChatChunk]:
        """The next piece of the arguments' JSON text."""
        call = self._open[call_id]
        shown = call.joiner.feed(piece)
        if shown:
            call.pieces.append(shown)
            yield ToolRequestArg(call.id, shown)

    def end(self, call_id: str, *, is_cut: bool = False) -> Iterator[ChatChunk]:
        """The call is whole, or was cut with the answer that it stands in. Without any text it has no arguments."""
        call = self._open.pop(call_id)
        rest = call.joiner.flush()
        if rest:
            call.pieces.append(rest)
            yield ToolRequestArg(call.id, rest)
        made = tool_call(call.id, call.name, "".join(call.pieces), is_cut=is_cut)
        if made.arguments_raw is None:
            try:
                misfit = _misfit(made.arguments, self._schemas.get(call.name, {}))
            except ValueError as error:
                yield Warn(f"the arguments of {call.name} were not checked: its parameters are {error}")
            else:
                made = made.model_copy(update={"parse_error": misfit})
        self.made.append(made)
        yield ToolRequestComplete(made)

    def whole(self, call_id: str, name: str, text: str) -> Iterator[ChatChunk]:
        """All chunks of a call that came in one piece."""
        yield from self.begin(call_id, name)
        yield from self.add(call_id, text)
        yield from self.end(call_id)

    def end_all(self, *, is_cut: bool = False) -> Iterator[ChatChunk]:
        """Ends those that have begun."""
        for call_id in list(self._open):
            yield from self.end(call_id, is_cut=is_cut)


def tool_call(call_id: str, name: str, text: str, *, is_cut: bool = False) -> ToolCall:
    """A call by the JSON text of its arguments. Without any text it has none, unless it `is_cut`."""
    try:
        arguments = {} if not text and not is_cut else _object(text)
    except ValueError as error:
        why = f"the answer was cut: {error}" if is_cut else str(error)
        return ToolCall(id=call_id, name=name, arguments_raw=text, parse_error=why)
    return ToolCall(id=call_id, name=name, arguments=arguments)


def _object(text: str) -> dict[str, Any]:
    arguments = parse_json_exactly(text.encode())
    if not isinstance(arguments, dict):
        raise ValueError(f"not a JSON object but a {type(arguments).__name__}")  # noqa: TRY004 as for text that is no JSON
    return arguments


def _misfit(arguments: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """Where arguments do not fit their schema; ValueError for a schema that is none.

    By a library whose time is bounded for any schema, and which asks nobody for what a schema refers to elsewhere.
    """
    from jsonschema_rs import ValidationError

    validator = _validator(schema)
    try:
        validator.validate(arguments)
    except ValidationError as misfit:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in misfit.instance_path)
        return f"does not fit the schema at ${place}: {misfit.message:.{_MISFIT_CHARACTERS}}"
    return None


def _validator(schema: dict[str, Any]) -> "Validator":
    # Whoever has no tools needs none of it.
    from jsonschema_rs import validator_for

    try:
        return validator_for(schema, offline=True)
    except ValueError as error:
        place = "".join(f".{step}" for step in getattr(error, "instance_path", []))
        why = str(error).partition("\n")[0]
        raise ValueError(f"no JSON Schema{place and f' at {place}'}: {why:.{_MISFIT_CHARACTERS}}") from error


def schema_problem(tool: ToolDefinition) -> str | None:
    """Why a tool's parameters are no JSON Schema, if they are none."""
    try:
        _validator(tool.parameters)
    except ValueError as error:
        return str(error)
    return None


def _has_halves(arguments: dict[str, Any]) -> bool:
    """Whether a text in it has lone surrogates, which are no characters: a CLI loses them, or the whole call."""
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
