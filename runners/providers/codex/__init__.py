"""OpenAI's Codex: the driver in `provider`, its process in `server` and `thread`, the translator in `events`."""
