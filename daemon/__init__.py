"""The supervisor, its front ends and its commands. Import from the modules themselves."""

IS_RUNNERD = True
"""Tells this package from PyPI's python-daemon, see `runnerd.py`."""

__version__ = "0.1.0"
