"""Any agent that speaks the Agent Client Protocol on its stdin and stdout; gemini and opencode stand on this."""
