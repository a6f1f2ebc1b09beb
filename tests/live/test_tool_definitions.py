"""What the real CLIs do not take as it is, of a tool's definition and of its calls: it is said, or it is mended."""

import asyncio
from typing import Any

import pytest

from runners.testing import calling
from tests.live.lab import Json
from tests.live.tool_lab import ToolLab, going_on
from tests.world import assistant, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture
def lab(lab_with_tools: ToolLab) -> ToolLab:
    return lab_with_tools


def tool(name: str = "f", description: str = "d", **schema: Any) -> Json:
    return {"name": name, "description": description, "parameters": {"type": "object", "properties": {}} | schema}


SCHEMAS: dict[str, Json] = {
    "ligature": {"description": "\ufb01ne"},
    "half": {"properties": {"p": {"enum": ["\u00bd", "x"]}}},
    "joiner": {"properties": {"a\u200db": {"type": "string"}}},
    "decomposed": {"description": "e\u0301"},
    "accents": {"description": "\u00e9\u00df\u65e5\u672c \U0001f600 \u2014"},
    "length": {"properties": {"p": {"type": "string", "minLength": 2}}},
    "dependent": {"properties": {"p": {}}, "dependentSchemas": {"p": {"required": ["q"]}}},
    "long": {"description": "\U0001f600" * 1500},
    "plain": {"properties": {"pattern": {"type": "string"}, "p": {"enum": ["if", 1, None]}, "q": {"anyOf": [{}]}}},
}
DEFINITIONS = {name: tool(name, **fields) for name, fields in SCHEMAS.items()}


async def test_each_definition_arrives_as_it_is_or_a_warning_names_its_tool(lab: ToolLab) -> None:
    answer = await lab.lab.chat(user("hello"), tools=[*DEFINITIONS.values()])
    received = {one["name"]: one for one in lab.received().tools}
    assert received.keys() == DEFINITIONS.keys()
    changed = [name for name in DEFINITIONS if received[name] != DEFINITIONS[name]]
    warned = [[name for name in DEFINITIONS if f"'{name}'" in warning] for warning in answer.result["warnings"]]
    assert sorted(warned) == sorted([name] for name in changed)
    for name in changed:
        refused = await lab.lab.chat(user("hello"), tools=[DEFINITIONS[name]], strict=True)
        assert refused.error["kind"] == "unsupported"
    assert not {*changed} & ({"accents"} if lab.lab.runner == "codex" else {"plain", "accents"})


DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}


@pytest.mark.parametrize("word", ["oneOf", "anyOf", "allOf"])
async def test_what_does_not_arrive_at_all_is_refused(lab: ToolLab, word: str) -> None:
    schema: Json = {word: [{"required": ["a"]}], "properties": {"a": {}}}
    answer = await lab.lab.chat(user("hello"), tools=[tool(**schema)])
    if lab.lab.runner == "claude":
        assert answer.error["kind"] == "unsupported"
        assert "tools[0].parameters" in answer.error["message"]
        assert lab.model_calls == 0
    else:
        # Codex hands it on, but not what in it has no type.
        assert (word if lab.lab.runner == "copilot" else "required") in answer.result["warnings"][0]


async def test_a_tool_that_the_cli_leaves_out_in_silence_fails_the_chat(lab: ToolLab) -> None:
    # A schema that is one, and which the CLI does not take all the same.
    odd = tool("g", properties={"p": {"type": "array", "items": [{"type": "string"}]}}, **DRAFT_7)
    answer = await lab.lab.chat(user("hello"), tools=[tool(), odd])
    if "error" in answer.response:
        assert answer.error["kind"] == "unsupported"
        assert "'g'" in answer.error["message"]
    else:
        assert len(lab.received().tools) == 2


async def test_a_schema_that_is_none_is_said_before_the_model_is_asked(lab: ToolLab) -> None:
    answer = await lab.lab.chat(user("hello"), tools=[tool(), tool("g", properties={"p": {"type": "nope"}})])
    said = answer.error["message"] if lab.lab.runner == "claude" else answer.result["warnings"][0]
    assert "tools[1].parameters" in said
    assert ".properties.p.type" in said


ARGUMENTS: dict[str, Json] = {
    "Write": {"file_path": "/a.py", "content": "line  \nq  "},
    "Edit": {"file_path": "/a.py", "old_string": "x  \ny ", "new_string": "", "edits": [{"a": " b "}]},
    "Bash": {"command": "cd / && ls \\\\; x "},
    "ExitPlanMode": {"plan": "p"},
    "TaskOutput": {"x": 1},
    "Read": {"file_path": "a", "limit": "5"},
    "Agent": {"prompt": "p", "subagent_type": "x"},
    "task_complete": {"summary": " s "},
    "view": {"path": "/a "},
}


async def test_tools_with_names_that_the_cli_knows_are_called_as_any_other(lab: ToolLab) -> None:
    tools = [tool("other"), *(tool(name, description=f"of {name}") for name in ARGUMENTS)]
    first = await lab.lab.chat(user("which?"), tools=tools)
    by_description = {one["description"]: one["name"] for one in lab.received().tools}
    theirs = [by_description[f"of {name}"] for name in ARGUMENTS]
    warned = [name for name in ARGUMENTS if any(f"'{name}'" in warning for warning in first.result["warnings"])]
    assert warned == [name for name, their in zip(ARGUMENTS, theirs, strict=True) if their != name]
    called = [*zip(theirs, ARGUMENTS.values(), strict=True)]
    asked = user(calling(*called, text="I do."))
    answer = await lab.lab.chat(asked, tools=tools)
    assert {call["name"]: call["arguments"] for call in answer.result["tool_calls"]} == ARGUMENTS
    gone_on = going_on(asked, answer, *["done"] * len(called))
    resumed = (await lab.lab.chat(gone_on, tools=tools)).result
    assert (resumed["served"], resumed["content"]) == ("resumed", "done")
    assert [one[1:] for one in lab.received().calls] == called
    # So they are told anew.
    again = (await lab.lab.chat([*gone_on, *user("and?")], tools=tools)).result
    assert (again["content"], again["tool_calls"] or []) == ("and?", [])
    assert [one[1:] for one in lab.received().calls] == called


async def test_calls_of_the_past_that_share_an_id_are_told_each_with_its_own_result(lab: ToolLab) -> None:
    past: list[Json] = user("?")
    for number in range(3):
        call = {"id": "call_0", "name": "f", "arguments": {"n": number}}
        past += [assistant("", tool_calls=[call]), {"role": "tool", "tool_call_id": "call_0", "content": f"r{number}"}]
    for number, other in ((8, "call_0_2"), (9, "call:0")):
        past[1]["tool_calls"].append({"id": other, "name": "f", "arguments": {"n": number}})
        past.insert(3, {"role": "tool", "tool_call_id": other, "content": f"r{number}"})
    await lab.lab.chat(past, tools=[tool()])
    received = lab.received()
    by_id = {call_id: arguments["n"] for call_id, _, arguments in received.calls}
    assert sorted(by_id.values()) == [0, 1, 2, 8, 9]
    assert {by_id[call_id]: text for call_id, text, _ in received.results} == {n: f"r{n}" for n in (0, 1, 2, 8, 9)}


async def test_a_call_that_the_cli_cannot_hand_on_is_the_clients_all_the_same_and_goes_on(lab: ToolLab) -> None:
    for raw in ('{"city": "\\ud83d"}', '{"city": "Par', "[1]"):
        # Beside one without arguments, of which copilot tells nothing then.
        asked = user(calling(("f", raw), ("f", ""), text="x"))
        before = lab.model_calls
        answer = await lab.lab.chat(asked, tools=[tool()])
        assert answer.result["stop_reason"] == "tool_calls"
        async with asyncio.timeout(20):
            gone_on = await lab.lab.chat(going_on(asked, answer, "x", "done"), tools=[tool()])
        assert (gone_on.result["served"] != "resumed", gone_on.result["content"]) == (True, "done")
        # Codex asks its model again by itself, unless it is stopped before.
        assert lab.model_calls in ((before + 2, before + 3) if lab.lab.runner == "codex" else (before + 2,))
