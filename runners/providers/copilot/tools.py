"""The client's tools and their results in the form that copilot's server is told them: pure. Facts are from 1.0.102."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from runners.messages import ChatMessage
from runners.tools import ToolDefinition, ToolNames

_NAME_CHARACTERS = 64
"""The CLI takes more, and some of the APIs behind it do not."""
_REWRITTEN = re.compile(
    "(min|max|exclusiveMin|exclusiveMax)imum|multipleOf|(min|max)(Length|Items|Properties)|pattern(Properties)?|format|"
    "content(Encoding|MediaType)|uniqueItems|contains|(min|max)Contains|propertyNames|dependent(Required|Schemas)|"
    "unevaluated(Properties|Items)|not|if|then"
)
"""What of a schema the CLI takes out and writes into the `description` beside it, as `{minLength: 1}`."""
_OF_SCHEMAS = ("properties", "$defs", "definitions", "dependentSchemas")
_OF_VALUES = ("enum", "const", "default", "examples", "required")


def names_of(tools: Sequence[ToolDefinition]) -> ToolNames:
    """What the model calls the tools. Two names the CLI keeps: one tool it drops, a call of the other ends its turn."""
    return ToolNames(tools, longest=_NAME_CHARACTERS, reserved=("tool_search_tool", "task_complete"))


def parameters_of(tools: Sequence[ToolDefinition], names: ToolNames) -> dict[str, Any]:
    """What a session of the CLI's is opened with, so that these are its model's only tools."""
    if not tools:
        return {}
    offered = [
        {
            "name": names.theirs(tool.name),
            "description": tool.description,
            "parameters": tool.parameters,
            "skipPermission": True,
            "overridesBuiltInTool": True,  # else one of the name `bash` fails
            "defer": "never",  # else of more than 30 the model is only told where to ask for them
        }
        for tool in tools
    ]
    return {
        "tools": offered,
        "availableTools": ["custom:*"],
        "toolSearch": {"enabled": False},
        "largeOutput": {"enabled": False},  # else the model is told of a file in the place of a result over 20 KB
    }


def rewritten(tool: ToolDefinition) -> list[str]:
    """The words of a tool's schema that its model is told in a description, and not as they are."""
    at_the_top = {"anyOf", "oneOf", "allOf", "enum"} & tool.parameters.keys()
    return sorted({word for word in _words(tool.parameters) if _REWRITTEN.fullmatch(word)} | at_the_top)


def _words(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _words(item)
    elif isinstance(schema, dict):
        for word, value in schema.items():
            yield word
            if word in _OF_SCHEMAS and isinstance(value, dict):
                yield from _words(list(value.values()))
            elif word not in _OF_VALUES:
                yield from _words(value)


def result_of(message: ChatMessage) -> dict[str, str]:
    """A tool's result. The model is told its text alone, of a failure too."""
    return {"textResultForLlm": message.text, "resultType": "failure" if message.is_error else "success"}
