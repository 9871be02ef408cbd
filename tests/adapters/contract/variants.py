"""The table of sources that keep the contract: an adapter joins by adding its variants here."""

from __future__ import annotations

import pytest

from tests.adapters.contract import memory, pubsub, servicebus, sqlite, sqs

VARIANTS = (
    *memory.VARIANTS,
    *sqlite.VARIANTS,
    *pubsub.VARIANTS,
    *servicebus.VARIANTS,
    *(pytest.param(variant, marks=pytest.mark.heavy) for variant in servicebus.HEAVY),
    *sqs.VARIANTS,
)
