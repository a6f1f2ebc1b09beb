"""One vendor CLI, one conversation at a time: the library under the daemon.

Import from the modules themselves; this package imports none of them, so that a
program pays only for what it uses.
"""

import logging

# What the library logs is for whoever sets logging up; without that it is not printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())
