"""Claude Code: the driver in `provider`, the translator in `events`."""
