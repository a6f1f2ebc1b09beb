"""One vendor CLI, one conversation at a time: the library under the daemon.

Import from the modules themselves; this package imports nothing, so that a
program pays only for what it uses.
"""
