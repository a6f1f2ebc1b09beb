"""JMESPath expressions of runners.yaml: checked when the file is read, and looked up in what a CLI prints. Pure."""

from collections.abc import Iterator
from typing import Annotated, Any

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.functions import Functions
from pydantic import AfterValidator

from runners.errors import ProtocolError


def _checked(expression: str) -> str:
    """The expression itself; ValueError for one that could not be looked up in anything."""
    try:
        compiled = jmespath.compile(expression)
    except JMESPathError as error:
        # Behind that it repeats the expression, with a mark under the place.
        why, _, _ = str(error).partition(", for expression:")[0].partition(":\n")
        raise ValueError(f"{expression!r} is no JMESPath expression: {why}") from error
    if any(node["type"] == "slice" and node["children"][-1] == 0 for node in _nodes(compiled.parsed)):
        raise ValueError(f"{expression!r}: a slice with a step of 0 finds nothing")
    for name, given in _calls(compiled.parsed):
        function = Functions.FUNCTION_TABLE.get(name)
        if function is None:
            raise ValueError(f"{expression!r}: JMESPath has no function {name}()")
        takes = len(function["signature"])
        is_variadic = any(argument.get("variadic") for argument in function["signature"])
        if given < takes or (given > takes and not is_variadic):
            raise ValueError(f"{expression!r}: {name}() takes {takes} arguments, and not {given}")
    return expression


def _calls(node: Any) -> Iterator[tuple[str, int]]:
    """Every function that is called, with the number of its arguments."""
    return ((one["value"], len(one["children"])) for one in _nodes(node) if one["type"] == "function_expression")


def _nodes(node: Any) -> Iterator[Any]:
    """Every part of an expression."""
    yield node
    for child in node["children"]:
        # Those of a slice are numbers.
        if isinstance(child, dict):
            yield from _nodes(child)


Expression = Annotated[str, AfterValidator(_checked)]
"""An expression as a key's value."""


class Rule:
    """An expression under its `key` in runners.yaml, which its errors name."""

    def __init__(self, key: str, expression: str) -> None:
        self.key = key
        self._expression = jmespath.compile(expression)

    def find(self, line: Any) -> Any:
        """What it finds; None for nothing, and for false, which a condition that does not hold comes to.

        Raises ProtocolError where a function or comparison of the expression is given what it does not take.
        """
        try:
            found = self._expression.search(line)
        except JMESPathTypeError as error:
            # Its own words repeat the value, which may be a part of an answer.
            raise ProtocolError(f"{self.key}: {error.function_name}() is given a {error.actual_type}") from error
        except (JMESPathError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            # jmespath checks itself what few of them take.
            raise ProtocolError(f"{self.key}: {error}") from error
        return None if found is False else found

    def holds(self, line: Any) -> bool:
        """Whether it finds anything: a list or an object with nothing in it is what a filter without a match gives."""
        return self.find(line) not in (None, [], {})

    def text(self, line: Any) -> str | None:
        """The same, where only a text will do; ProtocolError for anything else."""
        found = self.find(line)
        if found is not None and not isinstance(found, str):
            raise self.wrong(found, "a text")
        return found

    def count(self, line: Any) -> int | None:
        """The same for a whole number of something."""
        found = self.find(line)
        if found is not None and (isinstance(found, bool) or not isinstance(found, int) or found < 0):
            raise self.wrong(found, "a whole number")
        return found

    def number(self, line: Any) -> float | None:
        """The same for any number that is not negative."""
        found = self.find(line)
        if found is not None and (isinstance(found, bool) or not isinstance(found, int | float) or found < 0):
            raise self.wrong(found, "a number")
        return found

    def wrong(self, found: Any, wanted: str) -> ProtocolError:
        """The error for a value of the wrong type, which it does not repeat: it may be a part of an answer."""
        return ProtocolError(f"{self.key}: found {_NAMES.get(type(found), 'something else')} where {wanted} should be")


_NAMES = {bool: "true", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
