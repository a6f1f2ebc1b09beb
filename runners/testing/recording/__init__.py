"""Recording what the installed CLIs tell, run against stand-ins for their model APIs, and what of it has drifted.

The shapes that were recorded stand in `shapes/`, one file for each kind.
"""

from runners.testing.recording.recorder import START, Recorded, Recording, record, recorded
from runners.testing.recording.shapes import Drift, Shapes
from runners.testing.recording.vendors import UNRECORDED, VENDORS

__all__ = ["START", "UNRECORDED", "VENDORS", "Drift", "Recorded", "Recording", "Shapes", "record", "recorded"]
