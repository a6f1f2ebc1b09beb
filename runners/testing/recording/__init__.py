"""Recording what the installed CLIs tell, run against stand-ins for their model APIs, and what of it has drifted.

The shapes that were recorded stand in `shapes/`, one file for each kind. `python -m tests.record_shapes` writes them
anew: where other versions are pinned, and where a translator reads an event that it has passed over before.
"""

from runners.testing.recording.recorder import START, Recorded, Recording, record, recorded
from runners.testing.recording.shapes import Drift, Shapes
from runners.testing.recording.vendors import UNRECORDED, VENDORS

__all__ = ["START", "UNRECORDED", "VENDORS", "Drift", "Recorded", "Recording", "Shapes", "record", "recorded"]
