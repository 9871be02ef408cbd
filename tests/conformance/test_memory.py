"""The in-memory broker keeps the contract with the traits of every provider it stands for. On virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from eventkit.spi import Limits, Traits
from eventkit.testing import MemoryAdapter
from eventkit.testing.conformance import Check, Result, SinkConformance, SourceConformance, Status
from tests.conformance.places import memory_places
from tests.unit.test_memory_broker_loops import run

TENS = Limits(receive=10, concurrent_receives=4, settle=10, extend=10, publish=10)
SQS = Traits(
    delivery_count="approximate",
    confirms_ack=False,
    max_retry_delay=43_200.0,
    delay_granularity=1.0,
    lease_total_max=43_200.0,
)
SERVICE_BUS = Traits(max_retry_delay=0.0, lease_fixed=True, native_receive_limit=10)
PUBSUB = Traits(delivery_count="none", confirms_ack=False, max_retry_delay=0.0, retention=604_800.0)
BOUNDED = Traits(
    max_retry_delay=4.0,
    delay_granularity=0.5,
    lease_total_max=8.0,
    key_release="hold",
    native_receive_limit=4,
    retention=10.0,
)


def but(traits: Traits, **changed: Any) -> Traits:
    """The same but for what is `changed`."""
    return msgspec.structs.replace(traits, **changed)


# Options of the broker, by the provider it stands for. Those with order per key are asked for it.
BROKERS: dict[str, dict[str, Any]] = {
    "plain": {"traits": Traits()},
    "embedded": {"traits": Traits(key_release="hold", delay_granularity=0.001)},
    "sqs": {"traits": SQS, "limits": TENS, "native_dead_letter": False},
    "fifo": {"traits": but(SQS, key_release="followers"), "limits": TENS, "native_dead_letter": False},
    "servicebus": {"traits": SERVICE_BUS, "lease": 2.0},
    "sessions": {"traits": but(SERVICE_BUS, key_release="hold"), "lease": 2.0},
    "pubsub": {"traits": PUBSUB, "native_dead_letter": False},
    "ordered-pubsub": {
        "traits": but(PUBSUB, key_release="redelivers"),
        "native_dead_letter": False,
        "redelivers_acked": True,
    },
    "exactly-once-pubsub": {"traits": but(PUBSUB, delivery_count="approximate", confirms_ack=True)},
    "bounded": {"traits": BOUNDED, "limits": Limits(concurrent_receives=2)},
    "uncounted-release": {"traits": Traits(release_counts=False, key_release="followers")},
}


def result_of(kind: type[SourceConformance | SinkConformance], check: Check, broker: str, backend: str) -> Result:
    """Run one check on a broker of its own."""
    adapter = MemoryAdapter()
    traits: Traits = BROKERS[broker]["traits"]
    suite = kind(adapter, memory_places(adapter, **BROKERS[broker]), ordered=traits.key_release != "none")
    results: list[Result] = []

    async def main() -> None:
        results.append(await suite.run(check))

    run(backend, main)
    return results[0]


@pytest.mark.parametrize("check", SourceConformance.checks, ids=str)
@pytest.mark.parametrize("broker", BROKERS)
def test_a_source_conforms(broker: str, check: Check) -> None:
    """With what it declares; half of the brokers on trio, the others on asyncio."""
    result_of(SourceConformance, check, broker, "trio" if [*BROKERS].index(broker) % 2 else "asyncio").require()


@pytest.mark.parametrize("check", SinkConformance.checks, ids=str)
@pytest.mark.parametrize("broker", BROKERS)
def test_a_sink_conforms(broker: str, check: Check) -> None:
    """With what it declares; half of the brokers on trio, the others on asyncio."""
    result_of(SinkConformance, check, broker, "asyncio" if [*BROKERS].index(broker) % 2 else "trio").require()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_only_what_the_place_lacks_is_not_applicable_where_every_trait_is_bounded(backend: str) -> None:
    """Nothing is skipped without a reason that names it, and each check runs somewhere."""
    reasons = {
        check.name: result.reason
        for check in SourceConformance.checks
        if (result := result_of(SourceConformance, check, "bounded", backend)).status is Status.NOT_APPLICABLE
    }
    assert reasons == {
        "a_missing_source_is_said_to_be_missing": "the place gives no address `missing`",
        "a_source_out_of_reach_raises_adapter_errors_only": "the place gives no address `unreachable`",
        "a_dead_letter_can_be_received_where_the_place_says": "the place gives no address `dead_letters`",
    }
