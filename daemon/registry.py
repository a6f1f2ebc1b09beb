"""Names to runners: which provider, and which of its models, a client means."""

import asyncio
import difflib
from pathlib import Path

from daemon.config import Config
from runners.errors import ModelNotFoundError
from runners.kinds import provider_class
from runners.provider import LlmProvider


class Registry:
    """The configured runners, built once; `state_dir` holds a private directory for each."""

    def __init__(self, config: Config, state_dir: Path) -> None:
        self.runners: dict[str, LlmProvider] = {}
        self._aliases = config.aliases
        for name, settings in config.runners.items():
            self.runners[name] = provider_class(settings.kind)(name, settings, state_dir=state_dir / "runners" / name)
        self.default = config.default
        self.eligible = [runner for runner in self.runners.values() if not runner.by_name_only]
        """Who may answer without being named."""

    def runner(self, name: str) -> LlmProvider:
        """The runner of that name; ModelNotFoundError with the names there are."""
        if name not in self.runners:
            raise ModelNotFoundError(f"there is no runner {name!r}", hint=f"there are {', '.join(self.runners)}")
        return self.runners[name]

    def resolve(self, reference: str | None) -> tuple[LlmProvider, str]:
        """The runner and the vendor's model name for an alias, `runner:model`, `runner`, a bare model, or nothing.

        The name is empty where none was given: which model that is, the runner may have to look up.

        For nothing it is the configured default, else the first of `eligible`.

        Split at the first colon only: a model's own name may have more. A model behind a runner's name goes to the
        vendor as it is; what nobody knows is ModelNotFoundError with the nearest names.
        """
        if reference is None:
            if self.default is None and not self.eligible:
                raise ModelNotFoundError("the request names no model, and no runner may be a default")
            reference = self.default or self.eligible[0].name
        reference = self._aliases.get(reference, reference)
        name, _, model = reference.partition(":")
        if name in self.runners:
            return self.runners[name], model
        for runner in self.eligible:
            if runner.offers(reference):
                return runner, reference
        raise ModelNotFoundError(f"nobody serves the model {reference!r}", hint=self._nearest(reference))

    def _nearest(self, wanted: str) -> str:
        """A hint: the names like `wanted`, in the spelling that is served, or all there are."""
        served = [(name, info.model) for name, runner in self.runners.items() for info in runner.available_models()]
        names = [*self._aliases, *self.runners, *(f"{name}:{model}" for name, model in served)]
        near = difflib.get_close_matches(wanted, [*names, *(model for _, model in served)])
        found = [name for close in near for name in ([close] if close in names else _spelled(close, served))]
        return f"did you mean {', '.join(dict.fromkeys(found))}?" if found else f"there are {', '.join(names)}"

    async def aclose(self) -> None:
        """Closes every runner's sessions."""
        await asyncio.gather(*(runner.aclose() for runner in self.runners.values()))


def _spelled(model: str, served: list[tuple[str, str]]) -> list[str]:
    return [f"{runner}:{name}" for runner, name in served if name == model]
