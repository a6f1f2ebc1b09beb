"""The shapes of events: what they keep, how two recordings differ, and what is no difference."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.testing.recording import Drift, Shapes

FUZZ = settings(max_examples=100, deadline=None, database=None)
Events = list[tuple[str, dict[str, Any]]]

# What is no word stands for a map's keys; what would be read as a part of a path must not be taken for it.
_KEYS = st.sampled_from(["a", "b", "text", "", "a.b", "a[]", "a?", "*", "1", "\u00e9"])
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, 0, 1.5, "", "a", [], {}]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=2),
    max_leaves=6,
)
_EVENTS = st.lists(
    st.tuples(st.sampled_from(["start", "delta", "end"]), st.dictionaries(_KEYS, _VALUES, max_size=3)), max_size=5
)


def shapes(*events: dict[str, Any]) -> Shapes:
    """Those of events whose name stands in `type`."""
    found = Shapes()
    for event in events:
        found.add(event["type"], event)
    return found


def drift(before: dict[str, Any], now: dict[str, Any]) -> list[Drift]:
    """How one event differs from another of its type."""
    return shapes({"type": "t", **before}).drift_of(shapes({"type": "t", **now}))


def of(events: Events) -> Shapes:
    found = Shapes()
    for name, event in events:
        found.add(name, {"type": name, **event})
    return found


@FUZZ
@given(_EVENTS)
def test_events_never_drift_from_their_own_shapes_which_are_the_same_when_they_were_written(events: Events) -> None:
    found = of(events)
    assert found.drift_of(found) == []
    written = Shapes.from_json(json.loads(json.dumps(found.to_json())))
    assert written == found
    assert written.drift_of(of(events[::-1])) == []


@FUZZ
@given(_EVENTS, _EVENTS)
def test_neither_of_two_recordings_drifts_from_both_together(one: Events, other: Events) -> None:
    both = of(one).joined(of(other))
    assert both == of(other).joined(of(one))
    assert both.drift_of(of(one)) == both.drift_of(of(other)) == []
    assert Shapes.from_json(both.to_json()) == both


@FUZZ
@given(_EVENTS, st.sampled_from(["start", "delta", "end"]), _VALUES)
def test_a_key_that_no_event_had_is_the_one_difference(events: Events, name: str, value: Any) -> None:
    before = of([*events, (name, {})])
    [found] = before.drift_of(of([*events, (name, {"brand_new": value})]))
    assert (found.what, found.event, found.path) == ("new", name, "brand_new")
    [found] = of([*events, (name, {"brand_new": value})]).drift_of(before)
    assert (found.what, found.event, found.path) == ("missing", name, "brand_new")


def test_a_shape_is_paths_and_types_and_no_values() -> None:
    event = {"type": "t", "a": {"b": [{"text": "secret"}, {"text": None, "n": 1.5}]}, "is": True, "none": []}
    assert shapes(event).to_json() == {
        "t": {
            "a": "object",
            "a.b": "array",
            "a.b[]": "object",
            "a.b[].n": "number",
            "a.b[].text": "null | string",
            "is": "boolean",
            "none": "array",
            "type": "string",
        }
    }


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"n": 1}, {"n": 2.5}, None),
        ({"n": 1}, {"n": "1"}, ("changed", "n", "number", "string")),
        ({"n": True}, {"n": 1}, ("changed", "n", "boolean", "number")),
        ({"n": 1}, {"n": None}, ("changed", "n", "number", "null")),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {}}}, ("missing", "a.b.c", "number", None)),
        ({"a": {"b": {"c": 1}}}, {"a": {}}, ("missing", "a.b", "object", None)),
        ({"a": {}}, {"a": {"b": {"c": 1}}}, ("new", "a.b", None, "object")),
        ({"a": {"b": 1}}, {"a": [{"b": 1}]}, ("changed", "a", "object", "array")),
        ({"l": [1, "x"]}, {"l": ["y"]}, None),
        ({"l": ["x"]}, {"l": ["y", 1]}, ("changed", "l[]", "string", "number | string")),
        ({"l": [{"a": 1}]}, {"l": [{"a": 1}, {"a": 1, "b": 2}]}, ("new", "l[].b", None, "number")),
    ],
)
def test_a_difference_is_told_once_at_its_place(
    before: dict[str, Any], now: dict[str, Any], expected: tuple[str, ...] | None
) -> None:
    found = [(one.what, one.path, one.recorded, one.seen) for one in drift(before, now)]
    assert found == ([] if expected is None else [expected])


def test_a_key_that_only_some_events_of_its_type_have_may_be_missing_in_each_of_them() -> None:
    before = shapes({"type": "t", "a": 1}, {"type": "t", "b": 1})
    assert before.drift_of(shapes({"type": "t", "a": 1, "b": 1})) == []
    assert [one.path for one in before.drift_of(shapes({"type": "t", "a": 1}))] == ["b"]


def test_what_only_one_of_several_recordings_had_may_be_missing_and_is_marked_so() -> None:
    both = shapes({"type": "t", "a": 1, "b": {"c": 1}}).joined(shapes({"type": "t", "a": "x"}))
    assert both.to_json()["t"] == {"a": "number | string", "b?": "object", "b.c?": "number", "type": "string"}
    assert both.drift_of(shapes({"type": "t", "a": 1})) == []


def test_keys_that_are_no_words_are_those_of_a_map_and_are_not_compared() -> None:
    before = {"models": {"claude-x-4.5": {"cost": 1}}, "files": {"/tmp/a.py": 1}}
    now = {"models": {"claude-y-5": {"cost": 1}, "gpt 9": {"cost": 2}}, "files": {"b?c": 1}}
    assert drift(before, now) == []
    assert [one.path for one in drift(before, {"models": {"m-1": {"cost": "x"}}, "files": {"/": 1}})] == [
        "models.*.cost"
    ]


def test_a_new_type_of_event_is_told_by_its_name_and_one_that_does_not_occur_is_not() -> None:
    before = shapes({"type": "a", "x": 1}, {"type": "b"})
    assert before.drift_of(shapes({"type": "a", "x": 1}, {"type": "c", "y": {"z": 1}})) == [Drift("new", "c")]


def test_of_events_that_are_passed_over_only_their_name_counts() -> None:
    before, now = shapes({"type": "a", "x": 1}), shapes({"type": "a", "y": 1})
    passed_over = shapes({"type": "a", "x": 1})
    passed_over.pass_over(["a"])
    assert passed_over.to_json() == {"a": {}}
    assert passed_over.drift_of(now) == before.drift_of(passed_over) == passed_over.drift_of(passed_over) == []
    assert Shapes().drift_of(passed_over) == [Drift("new", "a")]
