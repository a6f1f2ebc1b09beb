"""The shapes of a CLI's events, and how two recordings of them differ. Pure, no I/O.

A shape says of each type of event at which paths it has something and of which JSON types that is:
`{"assistant": {"message.content[].text": string}}`. Values are never kept.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

_WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,47}")
_ANY_KEY = "*"
_SOMETIMES = "?"


@dataclass(frozen=True, slots=True)
class Place:
    """What stands at a path: of which JSON types it was seen, and whether every recording had it."""

    types: frozenset[str]
    is_always: bool = True

    def __str__(self) -> str:
        return " | ".join(sorted(self.types))

    def joined(self, other: "Place") -> "Place":
        """What both of them allow."""
        return Place(self.types | other.types, self.is_always and other.is_always)


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference from what was recorded, at a `path` of the events of one type; without a path, their type.

    `recorded` and `seen` are the JSON types; None where there was nothing.
    """

    what: Literal["new", "missing", "changed"]
    event: str
    path: str | None = None
    recorded: str | None = None
    seen: str | None = None


@dataclass(slots=True)
class Shapes:
    """The places of every type of event, by its name and by their path."""

    events: dict[str, dict[str, Place]] = field(default_factory=dict)

    def add(self, name: str, event: Mapping[str, Any]) -> None:
        """Takes an event in. What it lacks of others of its type is no difference: keys may be optional."""
        places = self.events.setdefault(name, {})
        for path, type_ in _places("", event):
            place = Place(frozenset([type_]))
            places[path] = places[path].joined(place) if path in places else place

    def pass_over(self, names: Iterable[str]) -> None:
        """Forgets what stands in the events of these types, which nobody reads: only that they occur counts."""
        self.events |= {name: {} for name in names}

    def joined(self, other: "Shapes") -> "Shapes":
        """What both recordings allow. A place that only one of them has, of events that both have, may be missing."""
        names = self.events.keys() | other.events.keys()
        return Shapes({name: _joined(self.events.get(name), other.events.get(name)) for name in names})

    def drift_of(self, seen: "Shapes") -> list[Drift]:
        """How a new recording differs from this one, by event and path.

        Of what lies inside of a place that is new, missing or changed nothing more is told, nor of what lies inside
        of a new type of event, or of one that one of the two has passed over. A type of event that did not occur is no
        difference: when a CLI tells some of them depends on time. Where the answer needed it, the scenario has failed.
        """
        found: list[Drift] = []
        for name, places in sorted(seen.events.items()):
            if name not in self.events:
                found.append(Drift("new", name))
            elif places and self.events[name]:
                found += _differences(name, self.events[name], places)
        return found

    @classmethod
    def from_json(cls, written: Mapping[str, Mapping[str, str]]) -> Self:
        """What `to_json` has written."""
        return cls(
            {
                name: {
                    path.removesuffix(_SOMETIMES): Place(frozenset(types.split(" | ")), not path.endswith(_SOMETIMES))
                    for path, types in places.items()
                }
                for name, places in written.items()
            }
        )

    def to_json(self) -> dict[str, dict[str, str]]:
        """Sorted, one line for each place; `?` behind the path of one that not every recording had."""
        return {
            name: {path + ("" if place.is_always else _SOMETIMES): str(place) for path, place in sorted(places.items())}
            for name, places in sorted(self.events.items())
        }


def _places(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """The path and the JSON type of everything inside of a value.

    A key that is no word (the name of a file or of a model, an id) is one of a map, whose keys are not compared.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            word = key if _WORD.fullmatch(key) else _ANY_KEY
            inside = f"{path}.{word}" if path else word
            yield inside, _type_of(inner)
            yield from _places(inside, inner)
    elif isinstance(value, list):
        for inner in value:
            yield f"{path}[]", _type_of(inner)
            yield from _places(f"{path}[]", inner)


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _joined(one: dict[str, Place] | None, other: dict[str, Place] | None) -> dict[str, Place]:
    if one is None or other is None:
        return one or other or {}
    nothing = Place(frozenset(), is_always=False)
    return {path: one.get(path, nothing).joined(other.get(path, nothing)) for path in one.keys() | other.keys()}


def _differences(name: str, recorded: Mapping[str, Place], seen: Mapping[str, Place]) -> Iterator[Drift]:
    told: set[str] = set()
    for path in sorted(recorded.keys() | seen.keys()):  # what lies around something comes before it
        before, now = recorded.get(path), seen.get(path)
        if not told.isdisjoint(_around(path)):
            continue
        if before is None:
            yield Drift("new", name, path, seen=str(now))
        elif now is None:
            if not before.is_always:
                continue
            yield Drift("missing", name, path, recorded=str(before))
        elif not now.types <= before.types:
            yield Drift("changed", name, path, recorded=str(before), seen=str(now))
        else:
            continue
        told.add(path)


def _around(path: str) -> Iterator[str]:
    """The paths of everything that a place lies in."""
    return (path[: match.start()] for match in re.finditer(r"\.|\[\]", path))
