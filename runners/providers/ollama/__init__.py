"""Ollama: the driver in `provider`, its server as a child of ours in `serve`, the translator in `events`."""
