"""Gemini CLI, as an ACP agent with a home of its own: `provider` starts it, `past` is how it is told a conversation."""
