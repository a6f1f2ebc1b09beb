"""Any CLI that prints JSON lines: declared in `settings`, driven by `provider`, its lines read by `events`."""
