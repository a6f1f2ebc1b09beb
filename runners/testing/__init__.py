"""For tests: a scripted provider, the provider contract as a kit, and a check that nothing is left behind."""

from runners.testing.contract import CONTRACTS, Contract, Received, Subject, request
from runners.testing.leaks import leaves_nothing
from runners.testing.scripted import Call, ScriptedProvider

__all__ = ["CONTRACTS", "Call", "Contract", "Received", "ScriptedProvider", "Subject", "leaves_nothing", "request"]
