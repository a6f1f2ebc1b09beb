"""README's examples, as the tests use them."""

import re
from functools import cache
from typing import Any

import yaml

from tests.capability_matrix import README


@cache
def blocks() -> list[str]:
    """Its YAML."""
    return re.findall(r"^```yaml\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def entry(name: str) -> dict[str, Any]:
    """What one of them has under `runners:` by this name."""
    made = [(yaml.safe_load(block).get("runners") or {}).get(name) for block in blocks()]
    return dict(next(found for found in made if found))
