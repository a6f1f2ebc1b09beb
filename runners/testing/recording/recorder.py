"""Runs an installed CLI through the scenarios against a stand-in, and tells the shapes of its events.

It is the real provider that runs it, and it is the events which that is about to translate that are recorded. The CLI
has a home of its own that ends with the recording, no variable of ours but PATH, and reaches nothing but loopback.
"""

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path

from runners.errors import RunnerError
from runners.event_session import EventSession
from runners.installed import numbers
from runners.kinds import provider_class
from runners.messages import ChatMessage, ChatRequest
from runners.provider import LlmProvider
from runners.stream import fold
from runners.testing.apis.stand_in import BaseError, BaseReply, Json, StandIn
from runners.testing.recording.answers import Api
from runners.testing.recording.scenarios import SCENARIOS, Scenario
from runners.testing.recording.shapes import Shapes
from runners.testing.recording.vendors import VENDORS
from runners.wire.deadlines import within

START = "its start"
"""What has failed of a CLI with which no scenario could be played."""

_NOWHERE = "http://127.0.0.1:9"
_ONLY_LOOPBACK = {"HTTP_PROXY": _NOWHERE, "HTTPS_PROXY": _NOWHERE, "NO_PROXY": "127.0.0.1,localhost"}
_TIMEOUTS = {"spawn_s": 60, "first_chunk_s": 60, "silence_s": 60, "turn_s": 120}
_PROBE_S = 180.0  # some unpack themselves first
_NOT_UNDERSTOOD = ("protocol", "timeout", "process_exited", "not_installed", "not_authenticated", "config", "network")


@dataclass
class Recording:
    """What a CLI told: its version, the shapes of its events, and what went wrong, by scenario.

    `unfit` says why it was not recorded.
    """

    version: str | None = None
    shapes: Shapes = field(default_factory=Shapes)
    failed: dict[str, str] = field(default_factory=dict)
    unfit: str | None = None


@dataclass(frozen=True)
class Recorded:
    """The shapes that a kind's events had, and the versions of its CLI that told them, the oldest first."""

    versions: list[str]
    shapes: Shapes


def recorded(kind: str) -> Recorded:
    """What runnerd ships of a kind in VENDORS."""
    written = json.loads((resources.files(__package__) / "shapes" / f"{kind}.json").read_text(encoding="utf-8"))
    return Recorded(written["versions"], Shapes.from_json(written["events"]))


async def record(kind: str, binary: str, directory: Path, *, since: str = "0.0") -> Recording:
    """Records a CLI of a kind in VENDORS, unless its version is from before `since`.

    `directory` is where its files are until it has ended.
    """
    vendor, recording = VENDORS[kind], Recording()
    with tempfile.TemporaryDirectory(dir=directory, ignore_cleanup_errors=True) as place:
        async with vendor.api.stand_in() as stand_in:
            provider = _provider(kind, binary, vendor.entry(stand_in.url), Path(place))
            provider.when_told = recording.shapes.add
            try:
                doing = f"asking {kind} for its version"
                recording.version = (await within(provider.probe(), _PROBE_S, deadline="probe", doing=doing)).version
                if recording.version is not None and _is_before(recording.version, since):
                    recording.unfit = f"{recording.version} is older than {since}, the oldest version that was recorded"
                else:
                    await _play_all(_Stage(provider, vendor.api, stand_in), recording, without=vendor.without)
            except RunnerError as error:
                recording.failed[START] = _told(error)
            finally:
                await provider.aclose()
    return recording


def _is_before(version: str, since: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)+", version) is not None and numbers(version) < numbers(since)


def _provider(kind: str, binary: str, entry: Json, place: Path) -> LlmProvider:
    """The provider of such an entry, whose CLI finds in `place` whatever there is."""
    found = provider_class(kind)
    entry = entry | {"kind": kind, "binary": binary, "timeouts": _TIMEOUTS}
    settings = found.settings_type.model_validate(entry | {"env": _ONLY_LOOPBACK | entry["env"]})
    provider = found(kind, settings, state_dir=place / "state")
    home = place / "home"
    home.mkdir()
    provider.surroundings = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8"}
    return provider


@dataclass(frozen=True)
class _Stage:
    """Where scenarios are played."""

    provider: LlmProvider
    api: Api
    stand_in: StandIn


async def _play_all(stage: _Stage, recording: Recording, *, without: Sequence[str]) -> None:
    able, passed_over = stage.provider.capabilities(), Counter[str]()
    async with AsyncExitStack() as stack:
        if able.sessions_per_process > 1:
            # A session that does nothing, for a process that would else be started anew for each scenario.
            stack.push_async_callback((await stage.provider.open()).aclose)
        for scenario in SCENARIOS:
            if scenario.name in without or not scenario.needs(able):
                continue
            try:
                problem = await _played(scenario, stage, passed_over)
            except RunnerError as error:
                problem = _told(error)
            if problem is not None:
                recording.failed[scenario.name] = problem
    recording.shapes.pass_over(passed_over)


async def _played(scenario: Scenario, stage: _Stage, passed_over: Counter[str]) -> str | None:
    """Plays a scenario in a session of its own; says what of its answers is wrong, or raises what they failed with.

    Adds the events that nobody knew to those that were `passed_over`.
    """
    provider = stage.provider
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": "Hello?"}], **scenario.fields})
    session = await provider.open()
    session.timeouts = provider.timeouts(request)
    try:
        await session.prepare(provider.session_options(request))
        messages = request.conversation
        for step in scenario.steps:
            stage.stand_in.answer = partial(_next, iter(step.replies(stage.api)), stage.api.text("ok"))
            try:
                answer = await fold(session.turn(messages, provider.sampling(request)))
            except RunnerError as error:
                if step.may_fail and error.kind not in _NOT_UNDERSTOOD:
                    return None
                raise
            if (problem := step.problem_of(answer)) is not None:
                return problem
            messages = [
                ChatMessage(role="tool", tool_call_id=call.id, content="18 degrees") for call in answer.tool_calls
            ]
    finally:
        if isinstance(session, EventSession):
            passed_over += session.unknown
        await session.aclose()
    return None


def _next(replies: Iterator[BaseReply | BaseError], otherwise: BaseReply, _body: Json) -> BaseReply | BaseError:
    return next(replies, otherwise)


def _told(error: RunnerError) -> str:
    return f"{error.kind}: {error.message}"
