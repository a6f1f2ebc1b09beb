"""A conversation as one text, for CLIs that take nothing better.

One message alone stands as it is. More of them are told apart by tags, which a model understands and an answer
seldom contains; the last message comes at the end, so that it is what is answered.
"""

from collections.abc import Sequence

from runners.messages import ChatMessage

_SPEAKERS = {"user": "user", "assistant": "assistant", "tool": "tool_result"}


def as_one_text(system: str, messages: Sequence[ChatMessage]) -> str:
    """The system prompt, what was said so far, and the last message, separated by empty lines."""
    *past, last = messages
    parts = [f"<instructions>\n{system}\n</instructions>"] if system else []
    if past:
        said = "\n".join(_tagged(message) for message in past)
        parts.append(f"<conversation_so_far>\n{said}\n</conversation_so_far>")
    parts.append(last.text if last.role == "user" else _tagged(last))
    return "\n\n".join(parts)


def _tagged(message: ChatMessage) -> str:
    speaker = _SPEAKERS[message.role]
    calls = "".join(f"\n<tool_call>{call.model_dump_json()}</tool_call>" for call in message.tool_calls)
    return f"<{speaker}>\n{message.text}{calls}\n</{speaker}>"
