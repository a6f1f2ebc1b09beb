"""The faults that the daemon is put to, a file for each place where they arise; see `fault` for what a row is."""

from tests.faults import cli, clients, daemon, kept, machine, neighbours, soak
from tests.faults.fault import FAULTS

__all__ = ["FAULTS", "cli", "clients", "daemon", "kept", "machine", "neighbours", "soak"]
