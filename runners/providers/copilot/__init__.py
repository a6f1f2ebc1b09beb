"""GitHub Copilot: the driver in `provider`, its two modes in `server` and `oneshot`, the translator in `events`."""
