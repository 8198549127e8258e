"""Logs: structured, to standard error, never with a prompt or a secret in them."""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog

from atmo.config import LogSection


class _StandardError:
    """Whatever standard error is at the moment. Loggers keep their file for ever, and who started a node within a
    program of their own may put another in its place."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def set_up_logs(section: LogSection) -> None:
    level = getattr(logging, section.level.upper())
    renderer = (
        structlog.processors.JSONRenderer()
        if section.json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
