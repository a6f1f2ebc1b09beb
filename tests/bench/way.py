"""The ways to a CLI that are compared, and the conversation that each of them has."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Protocol

from tests.bench.reading import Json, Timing
from tests.world import World

TURNS = 6


def prompt(turn: int) -> str:
    """What the user says then."""
    return f"Question {turn}: which number comes after {turn}?"


class Way(Protocol):
    """Someone who chats. `prepare` makes ready what is ready before the user speaks: nobody counts its time."""

    @property
    def name(self) -> str: ...

    def prepare(self) -> None: ...

    def new(self) -> Timing:
        """The first turn of a new chat."""
        ...

    def sixth(self) -> Timing:
        """The 6th turn, of the chat that `new` has begun where that one lives on."""
        ...

    def close(self) -> None: ...


class Subject(ABC):
    """A CLI of one version in a world, with a stand-in API at `api_url`."""

    kind: ClassVar[str]

    def __init__(self, world: World, binary: Path, version: str, api_url: str) -> None:
        self.world = world
        self.binary = binary
        self.version = version
        self.api_url = api_url

    @abstractmethod
    def entry(self) -> Json:
        """Its entry of runners.yaml."""

    @property
    def is_live(self) -> bool:
        """Whether one process of it serves more than one turn."""
        return True

    @abstractmethod
    def ways(self, *, sdk: bool) -> list[Way]:
        """Everyone that it is to be compared with; with `sdk` also its vendor's, where that is installed."""
