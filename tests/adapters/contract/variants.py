"""The table of sources that keep the contract: an adapter joins by adding its variants here."""

from __future__ import annotations

from tests.adapters.contract import memory, pubsub, sqlite, sqs

VARIANTS = (*memory.VARIANTS, *sqlite.VARIANTS, *pubsub.VARIANTS, *sqs.VARIANTS)
