"""How we talk to a child process: its pipes, its lines, its life and its death."""
