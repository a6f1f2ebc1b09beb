"""What an editor lets its user choose for a session: the model, and how much it thinks.

In two forms: config options, and for editors that do not know them `models` and `session/set_model`, which the protocol
had before and the package has no more. Pure.
"""

from typing import Any

from acp.schema import LoadSessionResponse, NewSessionResponse, SessionConfigOptionSelect, SessionConfigSelectOption
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

MODEL, EFFORT = "model", "thought_level"
DEFAULT = "default"
"""The choice to leave it to the daemon which model answers, and to the runner how much it thinks."""
EFFORTS = ("none", "low", "medium", "high", "xhigh")


class _Legacy(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class SetModel(_Legacy):
    """The params of `session/set_model`."""

    session_id: str
    model_id: str


class _Model(_Legacy):
    model_id: str
    name: str


class _Models(_Legacy):
    available_models: list[_Model]
    current_model_id: str


class NewSession(NewSessionResponse):
    """With `models`, as it was."""

    models: _Models


class LoadedSession(LoadSessionResponse):
    """With `models`, as it was."""

    models: _Models


class Choices:
    """What there is to choose from: `rows` are the daemon's models, `runners` its runners.

    `default` is who answers now where nothing is chosen.
    """

    def __init__(self, rows: list[dict[str, Any]], runners: list[dict[str, Any]], default: str) -> None:
        self._names = {DEFAULT: f"Default ({default})"}
        for runner in runners:
            if runner["state"] in ("ready", "degraded"):
                self._names[runner["name"]] = f"{runner['name']} ({runner['default_model'] or 'its default'})"
        self._names |= {row["id"]: row["id"] for row in rows}
        self._windows = {row["id"]: row["context_window"] for row in rows}

    def window(self, runner: str, *models: str | None) -> int | None:
        """How many tokens fit into the first of a runner's models of which that is known."""
        windows = (self._windows.get(f"{runner}:{model}") for model in models)
        return next((window for window in windows if window), None)

    def options(self, model: str | None, effort: str | None) -> list[Any]:
        """The config options of a session, and what is chosen of each."""
        efforts = {DEFAULT: "Default"} | {level: level for level in EFFORTS}
        return [
            _select(MODEL, "Model", "model", self._with(model), model),
            _select(EFFORT, "Reasoning effort", "thought_level", efforts, effort),
        ]

    def legacy(self, model: str | None) -> _Models:
        """The same of the model alone, as it was."""
        known = [_Model(model_id=value, name=name) for value, name in self._with(model).items()]
        return _Models(available_models=known, current_model_id=model or DEFAULT)

    def _with(self, model: str | None) -> dict[str, str]:
        """An alias, and a model that no runner lists, can be in use too."""
        return self._names | ({model: model} if model and model not in self._names else {})


def chosen(value: str) -> str | None:
    """What a choice means; None for the default."""
    return None if value == DEFAULT else value


def _select(option: str, name: str, category: Any, values: dict[str, str], current: str | None) -> Any:
    return SessionConfigOptionSelect(
        type="select",
        id=option,
        name=name,
        category=category,
        current_value=current or DEFAULT,
        options=[SessionConfigSelectOption(value=value, name=shown) for value, shown in values.items()],
    )
