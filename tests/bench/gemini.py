"""Gemini CLI without the daemon: one-shot by hand."""

import json

from tests.bench.one_shot import OneShot
from tests.bench.reading import Json
from tests.bench.way import Subject, Way
from tests.subjects.gemini import ENV, MODEL


class Gemini(Subject):
    """A gemini of one version, with a stand-in for its API."""

    kind = "gemini"

    def entry(self) -> Json:
        env = ENV | {"GOOGLE_GEMINI_BASE_URL": self.api_url}
        return {"kind": "gemini", "binary": str(self.binary), "model": MODEL, "env": env}

    def ways(self, *, sdk: bool) -> list[Way]:  # noqa: ARG002 its vendor has none that runs the CLI
        env = self.world.env | ENV | {"GOOGLE_GEMINI_BASE_URL": self.api_url, "GEMINI_CLI_TRUST_WORKSPACE": "true"}
        argv = [str(self.binary), "--output-format", "stream-json", "--model", MODEL]
        chosen = {".gemini/settings.json": json.dumps({"security": {"auth": {"selectedType": "gemini-api-key"}}})}
        resumes = ["--resume", "latest"]
        return [OneShot(self.world, argv, env, text=b'"role":"assistant"', resumes=resumes, files=chosen)]
