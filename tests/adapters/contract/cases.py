"""The contract: every case there is."""

from __future__ import annotations

from tests.adapters.contract import ends, losses, order, retries

CASES = (*retries.CASES, *ends.CASES, *order.CASES, *losses.CASES)
