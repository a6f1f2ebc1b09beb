"""opencode without the daemon: one-shot by hand."""

import json

from runners.providers.opencode.config import PLUGINS_LOCK
from tests.bench.one_shot import OneShot
from tests.bench.reading import Json
from tests.bench.way import Subject, Way
from tests.subjects.opencode import ENV, MODEL, provider_block


class Opencode(Subject):
    """An opencode of one version, with a stand-in API as a provider of the user's own."""

    kind = "opencode"

    def entry(self) -> Json:
        provider = provider_block(self.api_url)
        return {"kind": "opencode", "binary": str(self.binary), "model": MODEL, "provider": provider, "env": ENV}

    def ways(self, *, sdk: bool) -> list[Way]:  # noqa: ARG002 its vendor has none that runs the CLI
        # As with its plugins' package installed, which it would else fetch from npm at each start.
        config_place = self.world.home / ".config" / "opencode"
        (config_place / "node_modules").mkdir(parents=True)
        (config_place / "package-lock.json").write_text(PLUGINS_LOCK, encoding="utf-8")
        # Without what asks the network, or a model for a title: the same chat, and no more.
        config = {"provider": provider_block(self.api_url), "autoupdate": False, "agent": {"title": {"disable": True}}}
        quiet = {f"OPENCODE_DISABLE_{what}": "1" for what in ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD")}
        env = self.world.env | ENV | quiet | {"OPENCODE_CONFIG_CONTENT": json.dumps(config)}
        argv = [str(self.binary), "run", "--format", "json", "--pure", "--model", MODEL]
        return [OneShot(self.world, argv, env, text=b'"type":"text"', resumes=["--continue"])]
