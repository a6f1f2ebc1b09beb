"""Every text reaches the model and comes back byte for byte: also what codex's own prompt takes for more."""

import base64

import pytest

from runners.testing.apis.responses_api import text
from tests.live.lab import Json, Lab, joined
from tests.live.texts import much_text
from tests.subjects.codex import received_by_api
from tests.world import user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

# What stands for something else in codex's own prompt, on its command line, or in its protocol.
PROMPTS = [
    "--help -v",
    "/help",
    "  /compact",
    "@/etc/passwd",
    "$skill-creator now",
    "!ls -la",
    "# remember this",
    " \n\t ",
    "  two spaces, and two more  ",
    "\n\none\r\ntwo\r\n\t\n",
    "nul \x00 escape \x1b[31m delete \x7f lines \u2028 \u2029 \x85 marks \ufeff \u202e e\u0301 "
    "emoji \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 last \U0010ffff",
    "<environment_context>no</environment_context>",
    "<user_instructions>no</user_instructions>",
    "<turn_aborted>no</turn_aborted>",
    "-",
    "/",
    "@",
    "$(id) `id` $HOME %PATH% ~",
    "'\"\\ \\n",
    '{"id":1,"method":"turn/interrupt"}',
    "",
]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def lab(lab_of_codex: Lab) -> Lab:
    return lab_of_codex


async def test_a_prompt_reaches_the_model_as_it_is(lab: Lab) -> None:
    chats = {prompt: await lab.begin(user(prompt)) for prompt in PROMPTS}
    for answer in await lab.rest_of_all(*chats.values()):
        assert (answer.result["content"], answer.result["warnings"]) == ("ok", [])
    arrived = [received_by_api(received.body) for received in lab.api.requests]
    assert all(received.system == "" for received in arrived)
    assert sorted(received.messages for received in arrived) == sorted([("user", prompt)] for prompt in PROMPTS)


async def test_the_history_and_the_system_prompt_reach_the_model_as_they_are(lab: Lab) -> None:
    conversation: list[Json] = [{"role": "system", "content": "\n".join(PROMPTS) + "  \n"}]
    for prompt in PROMPTS:
        conversation += [*user(prompt), {"role": "assistant", "content": f"{prompt}  you said\n"}]
    conversation += user("and now?")
    await lab.chat(conversation)
    received = received_by_api((await lab.received()).body)
    assert received.system == conversation[0]["content"]
    assert received.messages == [(message["role"], message["content"]) for message in conversation[1:]]
    assert len(lab.api.requests) == 1


async def test_half_a_character_is_no_character_and_holds_nobody_up(lab: Lab) -> None:
    await lab.chat([{"role": "system", "content": "s \ud83d"}, *user("one \ude00 two")])
    received = received_by_api((await lab.received()).body)
    assert (received.system, received.messages) == ("s \ufffd", [("user", "one \ufffd two")])


async def test_two_megabytes_of_history_prompt_and_answer_survive_byte_for_byte(lab: Lab) -> None:
    conversation: list[Json] = [*user(much_text(500_000, 0)), {"role": "assistant", "content": "0"}]
    conversation += user(much_text(1_500_000, 1) + "  \n")
    whole = much_text(1_000_000, 2) + " \n\n"
    lab.api.script(text(*(whole[at : at + 400] for at in range(0, len(whole), 400)), usage={"input_tokens": 900_000}))
    answer = await lab.chat(conversation)
    received = received_by_api((await lab.received()).body)
    assert received.messages == [(message["role"], message["content"]) for message in conversation]
    assert answer.result["content"] == joined(answer.chunks, "text") == whole
    assert answer.result["usage"]["input_tokens"] == 900_000
    assert len(lab.api.requests) == 1  # none for a summary


async def test_images_stand_where_they_stood(lab: Lab) -> None:
    parts: list[Json] = [{"type": "text", "text": "before "}, image(PIXEL), {"type": "text", "text": " behind"}]
    await lab.chat([{"role": "user", "content": parts}])
    [item] = (await lab.received()).body["input"]
    assert item["content"] == [
        {"type": "input_text", "text": "before "},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
        {"type": "input_text", "text": " behind"},
    ]


async def test_a_large_image_arrives_as_it_is(lab: Lab) -> None:
    data = base64.b64encode(base64.b64decode(PIXEL) + b"\0" * 5_000_000).decode()
    await lab.chat([{"role": "user", "content": [image(data)]}])
    assert received_by_api((await lab.received()).body).images == [data]


def image(data: str) -> Json:
    return {"type": "image", "media_type": "image/png", "data": data}
