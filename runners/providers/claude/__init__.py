"""Claude Code: the driver in `provider` and `session`, the translator in `events`."""
