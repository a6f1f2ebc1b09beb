"""The placeholders in the arguments of a declared CLI. Pure."""

from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Annotated

from pydantic import AfterValidator

from runners.errors import InvalidRequestError

PLACEHOLDERS = ("model", "system", "system_file", "effort")
_ARGUMENT_BYTES = 128 * 1024
"""Linux starts no program with a longer one."""


def placeholders(argument: str) -> set[str]:
    """Those that stand in it; ValueError for one that there is none of."""
    try:
        parts = list(Formatter().parse(argument))
    except ValueError as error:
        raise ValueError(f"{argument!r}: {error}; a brace that is meant is written twice") from error
    for _, name, form, conversion in parts:
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise ValueError(f"{argument!r}: the placeholders are {known}; a brace that is meant is written twice")
    return {name for _, name, _, _ in parts if name is not None}


def _checked(argument: str) -> str:
    placeholders(argument)
    return argument


Argument = Annotated[str, AfterValidator(_checked)]
"""An argument as a list's item."""


def filled(arguments: Iterable[str], values: Mapping[str, str | None]) -> list[str]:
    """The arguments with their values; one of which a value is None is left out.

    Raises InvalidRequestError for what no argument can be, and for one that a client would make an option of.
    """
    told = [argument for argument in arguments if all(values[name] is not None for name in placeholders(argument))]
    made = [argument.format(**values) for argument in told]
    for argument, whole in zip(told, made, strict=True):
        if why := _unfit(argument, whole):
            hint = "{system_file} takes every system prompt" if "{system}" in argument else None
            raise InvalidRequestError(f"the argument {argument!r} {why}", hint=hint)
    return made


def _unfit(argument: str, whole: str) -> str | None:
    if "\0" in whole:
        return "would hold a NUL, which none can"
    if len(whole.encode(errors="replace")) >= _ARGUMENT_BYTES:
        return "would be longer than 128 KiB"
    if whole.startswith("-") and not argument.startswith("-"):
        return "would begin with `-`, as an option does"
    return None
