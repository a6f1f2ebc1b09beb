"""opencode, as an ACP agent with a plugin of ours: `provider` starts it, `plugin.js` makes a model of the agent."""
