"""Any CLI that only talks to a terminal: the driver in `provider` and `session`, the translator in `events`."""
