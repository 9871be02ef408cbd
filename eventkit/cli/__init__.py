"""The command `eventkit`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong configuration or usage, 128+n ended by a signal."""
    from eventkit.cli._app import app

    if sys.stderr is None:  # closed by whoever started us: what is written there goes nowhere
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
    try:
        app()
    except Exception as exc:  # noqa: BLE001 - the outermost frame: what is left is shown, and becomes the exit code
        from eventkit.cli._report import report

        sys.exit(report(exc))
