"""For tests: a scripted provider, the provider contract as a kit, and a check that nothing is left behind.

`recording` is for users too: it tells what an installed CLI does otherwise than the one that was tested.
"""

from runners.testing.contract import CONTRACTS as _CONTRACTS
from runners.testing.contract import Contract, Received, Subject, called_by, calling, request
from runners.testing.leaks import leaves_nothing
from runners.testing.scripted import Call, ScriptedProvider
from runners.testing.tool_contract import TOOL_CONTRACTS

CONTRACTS: list[Contract] = [*_CONTRACTS, *TOOL_CONTRACTS]
"""Every contract, in the order of its number."""

__all__ = [
    "CONTRACTS",
    "Call",
    "Contract",
    "Received",
    "ScriptedProvider",
    "Subject",
    "called_by",
    "calling",
    "leaves_nothing",
    "request",
]
