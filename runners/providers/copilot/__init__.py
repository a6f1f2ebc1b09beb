"""GitHub Copilot: the driver in `provider`, its two modes in `session` and `oneshot`, the translator in `events`."""
