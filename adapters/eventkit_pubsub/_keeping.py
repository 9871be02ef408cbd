"""Keeping the leases of what has arrived, and giving them up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anyio import current_time

from eventkit.errors import AdapterError
from eventkit.spi import DONE, LOST
from eventkit_pubsub._buffer import Group
from eventkit_pubsub._leases import MOST_IDS, Leases


class Keeper:
    """Extends leases to `lease` seconds from now, or gives messages back."""

    def __init__(self, leases: Leases, lease: int) -> None:
        self._leases = leases
        self._lease = lease

    async def extend(self, group: Group) -> bool:
        """Whether that was done; what of the group has no new lease then is left out of it, and comes again.

        Where it was done for none, as Pub/Sub asks for fewer calls, the old lease goes on, and it can be tried again.
        """
        asked_at, ack_ids = current_time(), group.ack_ids
        results = []
        try:
            for some in _calls(ack_ids):
                results += await self._leases.set("extend leases in", some, self._lease)
        except AdapterError:
            return False
        done = DONE in results
        gone = {
            id for id, result in zip(ack_ids, results, strict=True) if result is LOST or (done and result is not DONE)
        }
        if gone:
            group.drop(lambda each: each.ack_id in gone)
        if done:
            group.leased_until = asked_at + self._lease
        return done

    async def give_back(self, ack_ids: Sequence[str]) -> None:
        """What Pub/Sub does not take back comes again when its lease ends."""
        for some in _calls(ack_ids):
            try:
                await self._leases.set("nack in", some, 0)
            except AdapterError:
                return


def _calls(ack_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ack_ids), MOST_IDS):
        yield ack_ids[start : start + MOST_IDS]
