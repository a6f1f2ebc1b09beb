"""runners.yaml: found, read and checked. Every mistake is named by its key's path and its line, all at once."""

import difflib
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from daemon.paths import built_in_config, http_socket_path, named_config, token_path, user_config
from runners.errors import ConfigError
from runners.kinds import provider_class
from runners.settings import RunnerSettings
from runners.wire.framing import LINE_CAP_BYTES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SIZE = re.compile(r"\d+(\.\d+)? *([kmgt]i?b?|b)?", re.IGNORECASE)
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):(?P<port>\d{1,5})")
_Path = tuple[str | int, ...]

ALLOY = "alloy"
"""The model that stands for those of `alloy:`, by turns."""


class HttpSettings(BaseModel):
    """The part `daemon.http`. `unix` is the socket, else one beside the other; false for none.

    `tcp` is an address of this machine's loopback, where none is served unless it is named; `token_file` holds what has
    to come with what is sent there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unix: Path | bool = True
    tcp: str | None = None
    token_file: Path | None = None

    @field_validator("unix", mode="before")
    @classmethod
    def _is_a_place(cls, unix: Any) -> Any:
        # pydantic names every branch of a union that does not fit, and takes 0 for false.
        if not isinstance(unix, bool | str | Path):
            raise ValueError(f"{unix!r} is neither a path nor false")  # noqa: TRY004 pydantic wants it so
        return unix

    @field_validator("unix", "token_file")
    @classmethod
    def _is_absolute(cls, place: Path | bool | None) -> Path | bool | None:
        # A daemon that a command has started runs at `/`.
        if isinstance(place, Path) and not place.expanduser().is_absolute():
            raise ValueError(f"{place} is no absolute path: begin it with / or ~")
        return place

    @field_validator("tcp")
    @classmethod
    def _is_loopback(cls, tcp: str | None) -> str | None:
        if tcp is not None:
            _loopback_address(tcp)
        return tcp

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and port of `tcp`."""
        return None if self.tcp is None else _loopback_address(self.tcp)

    @property
    def token_place(self) -> Path:
        """Where the token is."""
        return (self.token_file or token_path()).expanduser()

    def socket_beside(self, rpc: Path) -> Path | None:
        """The socket, for a daemon whose other socket is `rpc`; None for none."""
        if isinstance(self.unix, Path):
            return self.unix.expanduser()
        return http_socket_path(rpc) if self.unix else None


def _loopback_address(tcp: str) -> tuple[str, int]:
    """The host and port of `HOST:PORT`; ValueError for one that others could reach."""
    found = _ADDRESS.fullmatch(tcp)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f"{tcp!r} is no address such as `127.0.0.1:8765`")
    host = "127.0.0.1" if found["host"] == "localhost" else found["host"].strip("[]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"{found['host']} is not this machine's own: only 127.0.0.1, [::1] and localhost are served")
    return host, int(found["port"])


class DaemonSettings(BaseModel):
    """The part `daemon:`. `socket` is where it listens, and clients must be told.

    `drain_s` is how long a shutdown waits for chats. `max_cli_memory` is for all CLIs together, in bytes or as `2GB`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    socket: Path | None = None
    http: HttpSettings = HttpSettings()
    drain_s: float = Field(default=30, ge=0)
    max_cli_memory: ByteSize | None = Field(default=None, gt=0, description="a quarter of the machine's when left out")
    parse_cap_bytes: int = Field(default=LINE_CAP_BYTES, ge=1024, description="the longest line of a client")

    @field_validator("max_cli_memory", mode="before")
    @classmethod
    def _is_a_size(cls, value: Any) -> Any:
        # pydantic takes the 50 of `50%`, and true for 1.
        if value is not None and not _SIZE.fullmatch(str(value)):
            raise ValueError(f"{value!r} is neither a number of bytes nor a size such as `2GB`")
        return value


class Config(BaseModel):
    """A whole runners.yaml. `runners` keeps the order of the file; `default` is a model reference or None.

    `fallback` are model references to ask in turn when the runner that was asked cannot answer. `alloy` are those that
    answer by turns when the model `alloy` is asked for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    daemon: DaemonSettings
    default: str | None
    aliases: dict[str, str]
    alloy: list[str]
    fallback: list[str]
    runners: dict[str, RunnerSettings]

    def shown(self) -> dict[str, Any]:
        """All of it, defaults included, for a person to read: without the values of `env`, which may be secret.

        Less `path`, and with the values of `env` put back, it is a runners.yaml that means the same.
        """
        # As what each entry is: its kind's own keys are no part of the common ones.
        whole = self.model_dump(mode="json", exclude_none=True, serialize_as_any=True)
        for entry in whole["runners"].values():
            entry["env"] = dict.fromkeys(entry["env"], "(hidden)")
        return whole


def find_config(explicit: Path | None = None) -> Path:
    """The file in force: the one that was named, else the user's own, else the built-in default."""
    named = explicit or named_config()
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"{named}: {'is no regular file' if named.exists() else 'no such file'}")
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
        document = self._parsed(text)
        if not isinstance(document, dict):
            raise ConfigError(f"{self._path}:1: runners: missing; a configuration has the keys {', '.join(_KEYS)}")
        for key in document.keys() - _KEYS.keys():
            self._mistake((key,), _unknown(key, list(_KEYS)))
        parts = {name: self._part(name, document[name]) for name in _KEYS if name in document}
        entries = parts.get("runners") or {}
        runners = dict(self._entries(entries))
        config = Config(
            path=self._path,
            daemon=parts.get("daemon") or DaemonSettings(),
            default=parts.get("default"),
            aliases=parts.get("aliases") or {},
            alloy=parts.get("alloy") or [],
            fallback=parts.get("fallback") or [],
            runners=runners,
        )
        if "runners" not in document:
            self._mistake(("runners",), "missing: there is nobody to serve")
        elif entries:
            self._check_references(config, entries)
        if self._mistakes:
            raise ConfigError("\n".join(f"{self._path}:{line}: {message}" for line, message in sorted(self._mistakes)))
        return config

    def _parsed(self, text: str) -> Any:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is not None:
                self._remember_lines(root, ())
            return yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{self._path}:{line}: not YAML: {error.problem}") from error
        except (ValueError, RecursionError) as error:
            # Of what looks like a date and is none, and of what nests too deep.
            raise ConfigError(f"{self._path}: not YAML that can be read: {error}") from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError(f"{self._path}:{line}: not YAML: a control character") from error

    def _part(self, name: str, value: Any) -> Any:
        """A top-level key's value as its type, or None where it is wrong."""
        try:
            return _KEYS[name].validate_python(value)
        except ValidationError as error:
            self._mistakes_of(error, (name,), DaemonSettings)
        return None

    def _remember_lines(self, node: yaml.Node, path: _Path, around: tuple[yaml.Node, ...] = ()) -> None:
        if node in around:
            raise ConfigError(f"{self._path}:{self._lines[path]}: {_dotted(path)}: contains itself")
        around = (*around, node)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                line = key.start_mark.line + 1
                child = (*path, str(key.value))
                if key.tag != "tag:yaml.org,2002:str":
                    raise ConfigError(f"{self._path}:{line}: {_dotted(child)}: a key is a text; put it in quotes")
                if child in self._lines:
                    self._mistakes.append((line, f"{_dotted(child)}: stands here twice (line {self._lines[child]})"))
                else:
                    self._lines[child] = line
                    self._remember_lines(value, child, around)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._lines[(*path, index)] = value.start_mark.line + 1
                self._remember_lines(value, (*path, index), around)

    def _mistake(self, path: _Path, message: str) -> None:
        known = path
        while known not in self._lines:
            known = known[:-1]
        self._mistakes.append((self._lines[known], f"{_dotted(path)}: {message}" if path else message))

    def _mistakes_of(self, error: ValidationError, path: _Path, model: type[BaseModel]) -> None:
        for detail in error.errors():
            location = detail["loc"]
            if detail["type"] == "extra_forbidden":
                message = _unknown(str(location[-1]), _known_keys(model, location[:-1]))
            else:
                message = "must be a mapping" if detail["type"] in ("model_type", "dict_type") else detail["msg"]
                message = message.removeprefix("Value error, ")
            self._mistake((*path, *location), message)

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
                    yield name, settings_type.model_validate(entry)
                except ConfigError as error:
                    self._mistake((*path, "kind"), error.message)
                except ValidationError as error:
                    self._mistakes_of(error, path, settings_type)

    def _check_references(self, config: Config, entries: dict[str, Any]) -> None:
        for alias, target in config.aliases.items():
            if alias in entries:
                self._mistake(("aliases", alias), "is a runner's name too")
            if not (config.alloy and target == ALLOY):
                self._check_reference(("aliases", alias), target, config, entries)
        if config.alloy and ALLOY in {*entries, *config.aliases}:
            where = "runners" if ALLOY in entries else "aliases"
            self._mistake((where, ALLOY), "with an alloy this name means the alloy")
        for key, references in (("alloy", config.alloy), ("fallback", config.fallback)):
            for index, reference in enumerate(references):
                target = config.aliases.get(reference, reference)
                self._check_reference((key, index), target, config, entries, unasked=True)
        if config.default is not None:
            target = config.aliases.get(config.default, config.default)
            if not (config.alloy and target == ALLOY):
                self._check_reference(("default",), target, config, entries, unasked=True)

    def _check_reference(
        self, path: _Path, reference: str, config: Config, entries: dict[str, Any], *, unasked: bool = False
    ) -> None:
        """`reference` must name a runner; for who did not ask for it by name, one that may answer them."""
        runner = reference.partition(":")[0]
        if runner not in entries:
            self._mistake(path, f"{reference!r} names no runner of this file ({', '.join(entries)})")
        elif unasked and runner in config.runners and provider_class(config.runners[runner].kind).by_name_only:
            self._mistake(path, f"{runner} answers only when it is asked for by name")
        elif path[0] == "fallback" and runner in config.runners and config.runners[runner].is_agent:
            self._mistake(path, f"{runner} is an agent, which may act by itself: it takes no other runner's place")


_KEYS: dict[str, TypeAdapter[Any]] = {
    "daemon": TypeAdapter(DaemonSettings),
    "default": TypeAdapter(str),
    "aliases": TypeAdapter(dict[str, str]),
    "alloy": TypeAdapter(list[str]),
    "fallback": TypeAdapter(list[str]),
    "runners": TypeAdapter(dict[str, Any]),
}


def _known_keys(model: type[BaseModel], inside: tuple[int | str, ...]) -> list[str]:
    for step in inside:
        annotation = model.model_fields[str(step)].annotation
        # A part that may be left out is `Part | None`.
        branches = [branch for branch in (annotation, *get_args(annotation)) if isinstance(branch, type)]
        model = next(branch for branch in branches if issubclass(branch, BaseModel))
    return list(model.model_fields)


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(str(key), known, n=1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(known)}"


def _dotted(path: _Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
