"""Logs go to stderr or a file: JSON lines for machines, colours on a terminal. Prompts and answers are never logged."""

import atexit
import logging
import logging.handlers
import os
import sys
from io import TextIOWrapper
from pathlib import Path

import structlog

_FILE_BYTES = 1024 * 1024
_OLD_FILES = 3


def configure(level: str = "info", file: Path | None = None) -> None:
    """Sets up structlog, and the standard library's loggers (those of `runners`) to come out the same way.

    With `file` they and stderr go there, 0600 and rotated.
    """
    terminal = file is None and sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr) if file is None else _File(file)
    handler.setFormatter(formatter)
    atexit.register(_let_go)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


class _File(logging.handlers.RotatingFileHandler):
    """A file that only its owner reads. What is written to stderr, such as a crash, follows it through rotations."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        opened = open(self.baseFilename, "a", encoding="utf-8", opener=_open_privately)  # noqa: SIM115 it stays open
        os.dup2(opened.fileno(), 2)
        return opened


def _open_privately(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _let_go() -> None:
    """Python exits with 120 when it cannot write the last of stderr: a full disk is no failure of ours."""
    try:
        sys.stderr.flush()
    except OSError:
        sys.stderr = None
