"""A systemd unit read back, by the rules of systemd.syntax(7)."""

import re


def settings_of(text: str) -> list[tuple[str, str]]:
    """The lines of a unit that are neither comments nor headings."""
    lines = [line for line in text.split("\n") if line and line[0] not in "#["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def values(text: str, name: str) -> list[str]:
    return [value for key, value in settings_of(text) if key == name]


def words(value: str) -> list[str]:
    """A line's words as systemd.syntax(7) reads them; specifiers and variables are not looked at."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"(?: |$)|([^\s"]+)(?: |$)', value)
    assert " ".join(f'"{quoted}"' if quoted or not bare else bare for quoted, bare in found) == value
    return [re.sub(r"\\(.)", r"\1", quoted) or bare for quoted, bare in found]


def plain(word: str, doubled: str) -> str:
    """A word in which a specifier or variable would show: its sign stands doubled or not at all."""
    for sign in doubled:
        assert word.replace(sign * 2, "").count(sign) == 0, word
        word = word.replace(sign * 2, sign)
    return word


def command_of(text: str) -> list[str]:
    [line] = values(text, "ExecStart")
    program, *arguments = words(line)
    return [plain(program, "%"), *(plain(word, "%$") for word in arguments)]


def environment_of(text: str) -> dict[str, str]:
    assignments = [plain(word, "%") for value in values(text, "Environment") for word in words(value)]
    return dict(assignment.split("=", 1) for assignment in assignments)
