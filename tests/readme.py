"""README's examples, as the tests use them."""

import re
from functools import cache
from typing import Any

import yaml

from tests.capability_matrix import README


@cache
def _entries() -> dict[str, Any]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return {name: made for block in blocks for name, made in (yaml.safe_load(block).get("runners") or {}).items()}


def entry(name: str) -> dict[str, Any]:
    """What README's YAML blocks have under `runners:` by this name."""
    return dict(_entries()[name])
