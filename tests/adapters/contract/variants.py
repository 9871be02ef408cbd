"""The table of sources that keep the contract: an adapter joins by adding its variants here.

Those of Service Bus, which take longest, are in a file of their own: `test_contract_servicebus.py`.
"""

from __future__ import annotations

from tests.adapters.contract import memory, pubsub, sqlite, sqs

VARIANTS = (
    *memory.VARIANTS,
    *sqlite.VARIANTS,
    *pubsub.VARIANTS,
    *sqs.VARIANTS,
)
