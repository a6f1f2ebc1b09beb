"""runners.yaml: found, read and checked. Every mistake is named by its key's path and its line, all at once."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemon.paths import built_in_config, named_config, user_config
from runners.errors import ConfigError
from runners.kinds import provider_class
from runners.settings import RunnerSettings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class DaemonSettings(BaseModel):
    """The part `daemon:`. `socket` overrides where clients look; `drain_s` is how long a shutdown waits for chats."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    socket: Path | None = None
    drain_s: float = Field(default=30, ge=0)
    parse_cap_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, description="the longest line of a client")


class Config(BaseModel):
    """A whole runners.yaml. `runners` keeps the order of the file; `default` is a model reference or None."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    daemon: DaemonSettings = DaemonSettings()
    default: str | None = None
    aliases: dict[str, str] = Field(default_factory=dict)
    runners: dict[str, RunnerSettings]


class _Layout(BaseModel):
    """The file's first level; each entry under `runners` is checked by its own kind."""

    model_config = ConfigDict(extra="forbid")

    daemon: DaemonSettings = DaemonSettings()
    default: str | None = None
    aliases: dict[str, str] = Field(default_factory=dict)
    runners: dict[str, Any]


def find_config(explicit: Path | None = None) -> Path:
    """The file in force: the one that was named, else the user's own, else the built-in default."""
    named = explicit or named_config()
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"{named}: no such file")
        return named
    return user_config() if user_config().is_file() else built_in_config()


def load_config(path: Path) -> Config:
    """Reads and checks a file; raises ConfigError with a line for each mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return _Reader(path).read(text)


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[_Path, int] = {(): 1}
        self._mistakes: list[tuple[int, str]] = []

    def read(self, text: str) -> Config:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = 1 if mark is None else mark.line + 1
            raise ConfigError(f"{self._path}:{line}: not YAML: {getattr(error, 'problem', error)}") from error
        if root is not None:
            self._remember_lines(root, ())
        document = yaml.safe_load(text) if root is not None and not self._mistakes else {}
        layout = self._check(_Layout, document, ())
        runners = dict(self._entries(layout.runners)) if layout else {}
        if layout:
            self._check_references(layout, runners)
        if self._mistakes or layout is None:
            lines = [f"{self._path}:{line}: {message}" for line, message in sorted(self._mistakes)]
            raise ConfigError("\n".join(lines))
        return Config(
            path=self._path, daemon=layout.daemon, default=layout.default, aliases=layout.aliases, runners=runners
        )

    def _remember_lines(self, node: yaml.Node, path: _Path) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                child = (*path, str(key.value))
                line = key.start_mark.line + 1
                if child in self._lines:
                    self._mistakes.append((line, f"{_dotted(child)}: stands here twice (line {self._lines[child]})"))
                self._lines[child] = line
                self._remember_lines(value, child)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._lines[(*path, index)] = value.start_mark.line + 1
                self._remember_lines(value, (*path, index))

    def _mistake(self, path: _Path, message: str) -> None:
        known = path
        while known not in self._lines:
            known = known[:-1]
        self._mistakes.append((self._lines[known], f"{_dotted(path)}: {message}" if path else message))

    def _check(self, model: type[Model], value: Any, path: _Path) -> Model | None:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for detail in error.errors():
                at = (*path, *detail["loc"])
                if detail["type"] == "extra_forbidden":
                    self._mistake(at, _unknown(str(detail["loc"][-1]), model, detail["loc"][:-1]))
                else:
                    self._mistake(at, detail["msg"])
            return None

    def _entries(self, entries: dict[str, Any]) -> Iterator[tuple[str, RunnerSettings]]:
        for name, entry in entries.items():
            path = ("runners", name)
            if not _NAME.fullmatch(name):
                self._mistake(path, "a runner's name is letters, digits, `_`, `.` and `-`")
            elif not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
                self._mistake(path, f"needs a kind, e.g. `{name}: {{kind: claude}}`")
            else:
                try:
                    settings_type = provider_class(entry["kind"]).settings_type
                except ConfigError as error:
                    self._mistake((*path, "kind"), error.message)
                    continue
                settings = self._check(settings_type, entry, path)
                if settings is not None:
                    yield name, settings

    def _check_references(self, layout: _Layout, runners: dict[str, RunnerSettings]) -> None:
        names = list(layout.runners)
        for alias, target in layout.aliases.items():
            if alias in names:
                self._mistake(("aliases", alias), "is a runner's name too")
            if target.partition(":")[0] not in names:
                self._mistake(("aliases", alias), f"{target!r} names no runner of this file")
        if layout.default is None:
            return
        runner = layout.aliases.get(layout.default, layout.default).partition(":")[0]
        if runner not in names:
            self._mistake(("default",), f"{layout.default!r} names no runner of this file ({', '.join(names)})")
        elif runner in runners and provider_class(runners[runner].kind).by_name_only:
            self._mistake(("default",), f"{runner} answers only when it is asked for by name")


def _unknown(key: str, model: type[BaseModel], inside: tuple[int | str, ...]) -> str:
    for step in inside:
        annotation = model.model_fields[str(step)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return "unknown key"
        model = annotation
    known = [name for name in model.model_fields if name != "path"]
    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(known)}"


def _dotted(path: _Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
