"""The blocks of docs/editors.md, for the tests that run them as they stand."""

import re
from dataclasses import dataclass

from tests.live.lab import Lab
from tests.world import CHECKOUT

PAGE = CHECKOUT / "docs" / "editors.md"
ADDRESS, TOKEN_FILE = "127.0.0.1:8765", "~/.local/state/runnerd/token"
"""What stands in the page for the address of the daemon on TCP, and for the file with its token."""

_PART = re.compile(r"^#{1,3} (?P<heading>.*)\n(?P<body>(?:(?!#{1,3} ).*\n)*)", re.MULTILINE)
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code under a heading. `before` is the prose above it, from the heading or the block before."""

    heading: str
    language: str
    text: str
    before: str


def blocks() -> list[Block]:
    """All of them, in order."""
    found = []
    for part in _PART.finditer(PAGE.read_text(encoding="utf-8")):
        end = 0
        for block in _BLOCK.finditer(part["body"]):
            before = part["body"][end : block.start()]
            found.append(Block(part["heading"], block["language"], block["text"], before))
            end = block.end()
    return found


def block(heading: str, language: str, nth: int = 0) -> str:
    """The text of one: of those in that language under that heading the n-th, from 0."""
    return [one.text for one in blocks() if (one.heading, one.language) == (heading, language)][nth]


def in_lab(text: str, lab: Lab) -> str:
    """A block for the daemon of a lab."""
    return text.replace(f"http://{ADDRESS}", lab.url).replace(TOKEN_FILE, str(lab.token_file))
