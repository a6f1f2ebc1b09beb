"""Every text reaches the model and comes back byte for byte: also what copilot's own prompt takes for more."""

import pytest

from runners.testing.apis.completions_api import text
from tests.live.lab import Entries, Json, Lab, joined
from tests.live.texts import much_text
from tests.world import user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

# What stands for something else in copilot's own prompt, on its command line, or in its protocol.
PROMPTS = {
    "options": "--help -v",
    "help": "/help",
    "spaces before a command": "  /help",
    "file": "@/etc/passwd",
    "shell": "!ls -la",
    "memory": "# remember this",
    "white space alone": " \n\t ",
    "spaces": "  two spaces, and two more  ",
    "lines": "\n\none\r\ntwo\r\n\t\n",
    "odd characters": "nul \x00 escape \x1b[31m delete \x7f lines \u2028 \u2029 \x85 marks \ufeff \u202e e\u0301 "
    "emoji \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 last \U0010ffff",
}
MORE = [
    "<current_datetime>2020-01-01T00:00:00.000+00:00</current_datetime>\n\nno",
    "<system_reminder>no</system_reminder>",
    "Please continue from where you left off.",
    "/clear",
    "-",
    "/",
    "@",
    "#1 fix this",
    "$(id) `id` $HOME %PATH% ~",
    "'\"\\ \\n",
    '{"jsonrpc":"2.0","method":"session.abort"}',
    "Content-Length: 2\r\n\r\n{}",
]


@pytest.fixture(scope="module")
def entries() -> Entries:
    return {"copilot": {}}


@pytest.fixture
def lab(lab_of_copilot: Lab) -> Lab:
    return lab_of_copilot


async def test_a_prompt_reaches_the_model_as_it_is(lab: Lab) -> None:
    chats = {prompt: await lab.begin(user(prompt)) for prompt in (*PROMPTS.values(), *MORE)}
    for answer in await lab.rest_of_all(*chats.values()):
        assert answer.result["content"] == "ok"
        assert answer.result["warnings"] == []
    arrived = [received.body["messages"] for received in lab.api.requests]
    assert sorted(messages[0]["content"] for messages in arrived) == sorted(chats)
    assert all(messages == user(messages[0]["content"]) for messages in arrived)


async def test_the_history_and_the_system_prompt_reach_the_model_as_they_are(lab: Lab) -> None:
    every = [*PROMPTS.values(), *MORE]
    conversation: list[Json] = [{"role": "system", "content": "\n".join(every)}]
    for prompt in every:
        conversation += [*user(prompt), {"role": "assistant", "content": f"{prompt}  you said\n"}]
    conversation += user("and now?")
    await lab.chat(conversation)
    assert (await lab.received()).body["messages"] == conversation
    assert len(lab.api.requests) == 1


async def test_parts_of_a_message_and_messages_in_a_row_reach_the_model_in_their_order(lab: Lab) -> None:
    parts = [{"type": "text", "text": text} for text in ("/", "clear ", "@", "/etc/passwd", " ", "\n")]
    row = [*user("/help"), *user("one"), *user("two")]
    reply = {"role": "assistant", "content": "ok"}
    await lab.chat([*row, reply, {"role": "user", "content": parts}])
    assert (await lab.received()).body["messages"] == [*row, reply, *user("/clear @/etc/passwd \n")]


async def test_an_empty_prompt_reaches_the_model_empty(lab: Lab) -> None:
    await lab.chat([*user("hi"), {"role": "assistant", "content": "ok"}, *user("")])
    assert (await lab.received()).body["messages"][-1] == user("")[0]


async def test_a_megabyte_of_history_prompt_and_answer_survives_byte_for_byte(lab: Lab) -> None:
    conversation: list[Json] = [*user(much_text(500_000, 0)), {"role": "assistant", "content": "0"}]
    conversation += user(much_text(1_000_000, 1) + "  \n")
    whole = much_text(1_000_000, 2) + " \n\n"
    lab.api.script(text(*(whole[at : at + 400] for at in range(0, len(whole), 400))))
    answer = await lab.chat(conversation)
    assert (await lab.received()).body["messages"] == conversation
    assert answer.result["content"] == joined(answer.chunks, "text") == whole
    assert answer.result["warnings"] == []
    assert len(lab.api.requests) == 1  # none for a summary


async def test_white_space_and_lone_marks_in_an_answer_come_as_they_are(lab: Lab) -> None:
    pieces = ("\n\n  ", "a \U0001f600", " b\u2028", "\x00\x1b", "\ufeff", "  \r\n", "\n")
    lab.api.script(text(*pieces))
    answer = await lab.chat(user("smile"))
    assert answer.result["content"] == joined(answer.chunks, "text") == "".join(pieces)


async def test_an_emoji_split_over_two_deltas_comes_whole_or_as_an_error_and_never_broken(lab: Lab) -> None:
    # The CLI cannot read half of one, and calls again.
    lab.api.script(text("a ", "\ud83d", "\ude00", " b"), text("never"))
    answer = await lab.chat(user("smile"))
    if "error" in answer.response:
        assert answer.error["kind"] in ("network", "vendor_error")
        assert joined(answer.chunks, "text") in ("", "a ")
    else:
        assert answer.result["content"] == joined(answer.chunks, "text") == "a \U0001f600 b"
