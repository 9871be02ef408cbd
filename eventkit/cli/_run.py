"""`eventkit run`."""

from __future__ import annotations

from eventkit._run import run
from eventkit._telemetry.log import LogFormat, LogObserver, configure_logging
from eventkit._telemetry.records import Level
from eventkit._worker import Worker
from eventkit.cli._config import Configuration
from eventkit.cli._handlers import load_handlers

__all__ = ["run_worker"]


def run_worker(configuration: Configuration, *, log_format: LogFormat | None, log_level: str | None) -> int:
    """Run the configured worker until it is drained; gives the exit code. Raises what `eventkit.run` raises."""
    settings = configuration.settings
    format = log_format or settings.log.format
    level = Level[(log_level or settings.log.level).upper()]
    # First, so that what the handlers' modules log on import has the same form.
    configure_logging(format, level)
    worker = Worker(
        settings.source,
        *load_handlers(settings.handlers, configuration.path),
        retry=settings.retry,
        limits=settings.limits,
        lease=settings.lease,
        max_processing=settings.max_processing,
        drain=settings.drain,
        ordering=settings.ordering,
        on_key_failure=settings.on_key_failure,
        dead_letter=settings.dead_letter,
        unroutable=settings.unroutable,
        decoding=settings.decoding,
        observers=[LogObserver(format, level)],
    )
    return run(worker)
