"""Every fault of the table, tried once in its short form: `make faults` tries them many times and prints the table."""

import pytest

from tests.faults import FAULTS
from tests.faults.fault import Fault, tried
from tests.faults.soak import soak
from tests.faults.table import row


@pytest.mark.usefixtures("no_leaks")
# The soak has a file of its own.
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault is not soak], ids=lambda fault: fault.name)
async def test_a_fault_shows_its_client_what_it_should_and_leaves_nothing(fault: Fault) -> None:
    outcome = await tried(fault, 1, is_full=False)
    assert outcome.is_good, row(outcome) + "\n".join(outcome.left_behind)
