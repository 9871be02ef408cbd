"""The brokers that are simulated: the in-memory one with the traits of each source."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from eventkit.spi import Limits, Traits
from eventkit.testing.memory import Settings

__all__ = ["BROKERS"]

_TEN: Final = Limits(receive=10, concurrent_receives=2, settle=10, extend=10, publish=10)
_LINK: Final = Limits(receive=50, concurrent_receives=2, settle=16, extend=16, publish=50)
_SESSION: Final = Limits(receive=50, concurrent_receives=1, settle=16, extend=16, publish=50)
_STREAM: Final = Limits(receive=100, concurrent_receives=1, settle=1000, extend=1000, publish=1000)

_SQLITE: Final = Traits(delay_granularity=0.001, key_release="hold")
_SQS: Final = Traits(
    delivery_count="approximate",
    confirms_ack=False,
    max_retry_delay=39_600.0,
    delay_granularity=1.0,
    lease_total_max=43_200.0,
)
_SERVICE_BUS: Final = Traits(max_retry_delay=0.0, lease_fixed=True)
_PUBSUB: Final = Traits(delivery_count="approximate", confirms_ack=False, max_retry_delay=0.0, nack_delay_max=600.0)
_EXACTLY_ONCE: Final = Traits(delivery_count="none", max_retry_delay=0.0, nack_delay_max=600.0)

BROKERS: Final[dict[str, Settings]] = {
    "sqlite": Settings(traits=_SQLITE, limits=_STREAM),
    "sqs": Settings(traits=_SQS, limits=_TEN, native_dead_letter=False),
    "fifo": Settings(traits=replace(_SQS, key_release="followers"), limits=_TEN, native_dead_letter=False),
    "servicebus": Settings(traits=_SERVICE_BUS, limits=_LINK),
    "sessions": Settings(traits=replace(_SERVICE_BUS, key_release="hold"), limits=_SESSION),
    "pubsub": Settings(traits=_PUBSUB, limits=_STREAM, lease_max=600.0, native_dead_letter=False),
    "pubsub-exactly-once": Settings(traits=_EXACTLY_ONCE, limits=_STREAM, lease_max=600.0, native_dead_letter=False),
    "pubsub-ordered": Settings(
        traits=replace(_PUBSUB, key_release="redelivers"),
        limits=_STREAM,
        lease_max=600.0,
        native_dead_letter=False,
        redelivers_acked=True,
    ),
}
"""Name -> how its queue behaves, but for the length of a lease, which the plan of a run sets."""
