"""Ollama: the driver in `provider`, its server in `server`, a conversation in `session`, translator in `events`."""
