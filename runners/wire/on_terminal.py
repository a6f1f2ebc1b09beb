"""Makes the terminal that is its stdin the controlling one of its session, and becomes the program that is named to it.

Only then does Ctrl-C reach the program and does /dev/tty open. Runs alone, without the packages beside it, in a session
that it leads.
"""

import fcntl
import os
import signal
import sys
import termios

NOT_A_PROGRAM = 126
"""The exit code when the program cannot be run, as shells have it."""


def main() -> None:
    """Runs `argv[1:]`, whose first is an absolute path."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Python ignores this one, and what is ignored stays so in the next program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 what it is for
    except OSError as error:
        sys.stderr.write(f"{sys.argv[1]} cannot be started: {error.strerror}\n")
        sys.exit(NOT_A_PROGRAM)


if __name__ == "__main__":
    main()
