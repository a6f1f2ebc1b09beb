"""Names to runners: which provider, and which of its models, a client means."""

import difflib
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from daemon.config import ALLOY, Config
from runners.errors import ModelNotFoundError
from runners.kinds import provider_class
from runners.provider import LlmProvider


@dataclass(frozen=True, slots=True)
class Route:
    """Who is to answer, and with which model. The name is empty where it is for the runner to know."""

    runner: LlmProvider
    model: str


class Registry:
    """The configured runners, built once; `state_dir` and `run_dir` hold a private directory for each.

    The latter is for what ends with this process. A runner of `before` whose entry has not changed stays the same.
    """

    def __init__(
        self, config: Config, state_dir: Path, run_dir: Path | None = None, *, before: "Registry | None" = None
    ) -> None:
        self.runners: dict[str, LlmProvider] = {}
        for name, settings in config.runners.items():
            known = before.runners.get(name) if before else None
            if known is None or known.settings != settings:
                own_run_dir = run_dir and run_dir / name
                known = provider_class(settings.kind)(
                    name, settings, state_dir=state_dir / "runners" / name, run_dir=own_run_dir
                )
            self.runners[name] = known
        self.default = config.default
        self.eligible = [
            runner for runner in self.runners.values() if not runner.by_name_only and not runner.settings.is_agent
        ]
        """Who may answer without being named."""
        self._aliases = config.aliases
        self._fallback = config.fallback
        self._alloy = config.alloy
        self._by_turns = cycle(config.alloy)

    def runner(self, name: str) -> LlmProvider:
        """The runner of that name; ModelNotFoundError with the names there are."""
        if name not in self.runners:
            raise ModelNotFoundError(f"there is no runner {name!r}", hint=f"there are {', '.join(self.runners)}")
        return self.runners[name]

    def resolve(self, reference: str | None) -> Route:
        """Who answers for an alias, `alloy`, `runner:model`, `runner`, a bare model, or nothing.

        For nothing it is the configured default, else the first of `eligible`.

        Split at the first colon only: a model's own name may have more. A model behind a runner's name goes to the
        vendor as it is; what nobody knows is ModelNotFoundError with the nearest names.
        """
        if reference is None:
            if self.default is None and not self.eligible:
                raise ModelNotFoundError("the request names no model, and no runner may be a default")
            reference = self.default or self.eligible[0].name
        reference = self._aliases.get(reference, reference)
        if self.is_alloy(reference):
            reference = next(self._by_turns)
            reference = self._aliases.get(reference, reference)
        name, _, model = reference.partition(":")
        if name in self.runners:
            return Route(self.runners[name], model)
        for runner in self.eligible:
            if runner.offers(reference):
                return Route(runner, reference)
        raise ModelNotFoundError(f"nobody serves the model {reference!r}", hint=self._nearest(reference))

    def is_alloy(self, reference: str | None) -> bool:
        """Whether it means those that answer by turns."""
        reference = reference or self.default or ""
        return bool(self._alloy) and self._aliases.get(reference, reference) == ALLOY

    def fallbacks(self, first: Route) -> list[Route]:
        """Who is asked in turn when `first` cannot answer: of the configured ones all other runners."""
        routes = [self.resolve(reference) for reference in self._fallback]
        return [route for route in routes if route.runner is not first.runner]

    @property
    def defaults(self) -> list[Route]:
        """Who may answer a request that names no model, where that is configured: more than one is an alloy."""
        if self.default is None:
            return []
        return self.alloy if self.is_alloy(self.default) else [self.resolve(self.default)]

    @property
    def alloy(self) -> list[Route]:
        """Those that answer by turns."""
        return [self.resolve(reference) for reference in self._alloy]

    def _nearest(self, wanted: str) -> str:
        """A hint: the names like `wanted`, in the spelling that is served, or all there are."""
        served = [(name, info.model) for name, runner in self.runners.items() for info in runner.available_models()]
        names = [
            *self._aliases,
            *([ALLOY] if self._alloy else []),
            *self.runners,
            *(f"{name}:{model}" for name, model in served),
        ]
        near = difflib.get_close_matches(wanted, [*names, *(model for _, model in served)])
        found = [name for close in near for name in ([close] if close in names else _spelled(close, served))]
        return f"did you mean {', '.join(dict.fromkeys(found))}?" if found else f"there are {', '.join(names)}"


def _spelled(model: str, served: list[tuple[str, str]]) -> list[str]:
    return [f"{runner}:{name}" for runner, name in served if name == model]
