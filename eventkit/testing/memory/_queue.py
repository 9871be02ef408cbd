"""One queue of the in-memory broker: a state machine without waiting, clock or chance.

Every method that changes something takes `now`, on the loop's clock, which never runs backwards. What time
alone changes (a lease ends, a delay is over) is caught up with at the next call, in the order in which it
was due: when a queue is looked at, and how often, changes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

from eventkit.spi import DONE, LOST, DeadLetter, Delivery, Depth, Extended, Letter, Receipt, Settled
from eventkit.testing.memory._flow import Flow
from eventkit.testing.memory._values import Change, Counts, Kind, Message, Settings


class MemoryQueue:
    """The verbs of a queue under the rules of `settings`: those of every source at it, so more than seven.

    Order: events without a key come in the order in which they became deliverable, so one that went back
    stands at the end; those of a key come in the order of their key, and keys take turns, one event each.
    """

    def __init__(self, name: str, settings: Settings, receipts: Iterator[int], wall: Callable[[float], float]) -> None:
        self.name = name
        self.settings = settings
        self._flow = Flow(name, settings, wall)
        self._receipts = receipts
        self._feeds: deque[Iterator[Message]] = deque()

    def watch(self, on_ready: Callable[[], None], tell: Callable[[Change], None] | None) -> None:
        """Call `on_ready` when there may be more to deliver, or to wait for sooner, and `tell` with each change.

        Neither may call the queue.
        """
        self._flow.on_ready = on_ready
        self._flow.tell = tell

    @property
    def next_due(self) -> float:
        """When time will change something, on the loop's clock: perhaps later, never sooner."""
        return self._flow.next_due

    # -- what goes in --------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """The loop's clock is known: what was published before, at 0, was published now."""
        self._flow.start(now)

    def publish(self, message: Message, delay: float, now: float) -> None:
        """Accept `message`, to be delivered after `delay` seconds; it takes its place when it is due."""
        self._flow.advance(now)
        self._flow.accept((message,), delay, now)
        self._flow.on_ready()

    def feed(self, messages: Iterable[Message]) -> None:
        """Publish `messages` one by one as receives ask for them, so that they need not exist before."""
        self._feeds.append(iter(messages))
        self._flow.on_ready()

    def _pull(self, most: int, now: float) -> bool:
        """Publish up to `most` events of the feeds; False when they are at their end."""
        while self._feeds:
            if self._flow.accept(islice(self._feeds[0], most), 0.0, now):
                return True
            self._feeds.popleft()
        return False

    # -- what goes out -------------------------------------------------------------------------

    def join(self, source: int) -> None:
        """Source number `source` will take from here."""
        self._flow.order.join(source)

    def leave(self, source: int) -> None:
        """Source number `source` takes no more. What it holds stays its own until the leases end."""
        self._flow.order.leave(source)

    def take(self, limit: int, length: float, source: int, now: float) -> list[Delivery]:
        """Lease up to `limit` events to source number `source` for `length` seconds."""
        flow, traits = self._flow, self.settings.traits
        flow.advance(now)
        length = length if traits.lease_total_max is None else min(length, traits.lease_total_max)
        oldest = -math.inf if traits.retention is None else now - traits.retention
        counted = traits.delivery_count != "none"
        until, leased_until = now + length, now + max(length - 1.0, length / 2)
        order, receipts, term = flow.order, self._receipts, flow.leases.term(length)
        taken: list[Delivery] = []
        order.begin()
        while len(taken) < limit:
            message = order.next(source)
            if message is None:
                if self._feeds and self._pull(limit - len(taken), now):
                    continue
                break
            if message.born <= oldest:
                flow.drop(message, now)
                order.skip(message)
                continue
            receipt = next(receipts)
            message.count += 1
            message.leased_at = now
            message.until = until
            term[receipt] = message
            if message.place:
                order.out(receipt, message, source)
            taken.append(_delivery(message, receipt, leased_until, counted=counted))
        if taken:
            flow.counts.delivered += len(taken)
            flow.will_be_due(until)
            if flow.tell is not None:
                for delivery in taken:
                    receipt = delivery.receipt
                    flow.told(Kind.DELIVERED, term[receipt], now, receipt=receipt, until=until, source=source)
        return taken

    # -- what a broker does when it is not at its best ----------------------------------------------

    def duplicate(self, receipt: Receipt, source: int, now: float) -> Delivery | None:
        """Deliver what is leased under `receipt` once more, to source number `source`, under the same lease.

        Both receipts are good, and the first that is used to settle makes the other stale. None when there is
        nothing under the receipt, or it has an order that a second delivery would break.
        """
        flow = self._flow
        flow.advance(now)
        message = flow.leases.find(receipt)
        if message is None or message.place:
            return None
        other = next(self._receipts)
        flow.leases.twin(receipt, other)
        message.count += 1
        flow.counts.delivered += 1
        if flow.tell is not None:
            flow.told(Kind.DELIVERED, message, now, receipt=other, until=message.until, source=source)
        left = message.until - now
        counted = self.settings.traits.delivery_count != "none"
        return _delivery(message, other, now + max(left - 1.0, left / 2), counted=counted)

    def expire(self, receipt: Receipt, now: float) -> bool:
        """End a lease before its time, as a broker does that fails over; False when there is none."""
        flow = self._flow
        flow.advance(now)
        message = flow.leases.pop(receipt)
        if message is None:
            return False
        flow.expire(receipt, message, now)
        return True

    # -- settling and extending ----------------------------------------------------------------

    def ack(self, receipts: Sequence[Receipt], now: float) -> list[Settled]:
        """End these deliveries as done.

        A broker that does not confirm acks answers DONE to a stale receipt too, as SQS and Pub/Sub do: what was
        delivered under it stays as it is.
        """
        flow = self._flow
        flow.advance(now)
        pop, results, before = flow.leases.pop, [], flow.live
        stale = LOST if self.settings.traits.confirms_ack else DONE
        for receipt in receipts:
            message = pop(receipt)
            if message is None:
                results.append(stale)
                flow.met_stale("ack", receipt, now)
                continue
            results.append(DONE)
            flow.live -= 1
            if message.place:
                flow.order.ended(receipt, message, acked=True)
                flow.on_ready()
            if flow.tell is not None:
                flow.told(Kind.ACKED, message, now, receipt=receipt)
        flow.counts.acked += before - flow.live
        return results

    def nack(self, items: Sequence[tuple[Receipt, float]], now: float) -> list[Settled]:
        """Give these back, each to be delivered again after its delay, rounded up to the granularity.

        A delay beyond `Traits.longest_nack` is refused and the lease goes on, as SQS and Pub/Sub have it: to clamp
        is the caller's affair. Without `release_counts`, a delivery given back with delay 0 is not counted.
        """
        self._flow.advance(now)
        return [self._nack(receipt, delay, now) for receipt, delay in items]

    def _nack(self, receipt: Receipt, delay: float, now: float) -> Settled:
        flow, traits = self._flow, self.settings.traits
        most = math.inf if (longest := traits.longest_nack) is None else longest
        if not 0 <= delay <= most or delay == math.inf:
            return Settled.refused(f"delay of {delay:g} s: from 0 to {most:g} s are possible")
        message = flow.leases.pop(receipt)
        if message is None:
            return flow.met_stale("nack", receipt, now)
        if delay == 0 and not traits.release_counts:
            message.count -= 1
        due = now + rounded_up(delay, traits.delay_granularity) if delay else 0.0
        flow.counts.nacked += 1
        if flow.tell is not None:
            flow.told(Kind.NACKED, message, now, receipt=receipt, until=due)
        flow.go_back(receipt, message, due, now)
        return DONE

    def extend(self, receipts: Sequence[Receipt], length: float, now: float) -> list[Extended | Settled]:
        """Let these leases end `length` seconds from now, which may be earlier than they would.

        With `lease_fixed` the length is the queue's own, whatever is asked. At `lease_total_max` after the
        receive a lease ends for good: an extension beyond is shortened, and one after it comes too late.
        """
        self._flow.advance(now)
        if not length > 0:
            return [Settled.refused(f"lease of {length:g} s: must be above 0 s")] * len(receipts)
        return [self._extend(receipt, self.settings.length(length), now) for receipt in receipts]

    def _extend(self, receipt: Receipt, length: float, now: float) -> Extended | Settled:
        flow, total = self._flow, self.settings.traits.lease_total_max
        message = flow.leases.pop(receipt)
        if message is None:
            return flow.met_stale("extend", receipt, now)
        end = math.inf if total is None else message.leased_at + total
        message.until = min(now + length, end)
        # A lease cut short fits in no term of its length; all that end at one time share one, named by -end.
        flow.leases.term(length if message.until < end else -end)[receipt] = message
        flow.will_be_due(message.until)
        if flow.tell is not None:
            flow.told(Kind.EXTENDED, message, now, receipt=receipt, until=message.until)
        return Extended(message.until)

    def dead_letter(self, letters: Sequence[Letter], now: float) -> list[Settled]:
        """Move these to the dead letters."""
        self._flow.advance(now)
        return [self._dead_letter(letter, now) for letter in letters]

    def _dead_letter(self, letter: Letter, now: float) -> Settled:
        flow = self._flow
        message = flow.leases.pop(letter.receipt)
        if message is None:
            return flow.met_stale("dead_letter", letter.receipt, now)
        flow.bury(message, letter.reason, letter.detail, now, receipt=letter.receipt)
        if message.place:
            flow.order.ended(letter.receipt, message)
            flow.on_ready()
        return DONE

    # -- the dead letters ----------------------------------------------------------------------

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """All of them, oldest first."""
        return list(self._flow.dead_letters)

    def peek(self, limit: int, after: str | None) -> list[DeadLetter]:
        """Up to `limit` dead letters, oldest first, those after the one with id `after`, be it there or not."""
        return self._flow.dead_letters.peek(limit, after)

    def remove_dead(self, ids: Sequence[str], now: float) -> list[Settled]:
        """Take dead letters out for good."""
        return [self._revived(id, Kind.REMOVED, now) for id in ids]

    def put_back(self, ids: Sequence[str], now: float) -> list[Settled]:
        """Make dead letters deliverable again: their count and age start at 0, their place is the last."""
        self._flow.advance(now)
        results = [self._revived(id, Kind.PUT_BACK, now) for id in ids]
        self._flow.on_ready()
        return results

    def _revived(self, id: str, kind: Kind, now: float) -> Settled:
        flow = self._flow
        message = flow.dead_letters.take(id)
        if message is None:
            return LOST
        if kind is Kind.PUT_BACK:
            message.count, message.place, message.due, message.born = 0, 0, 0.0, now
            flow.live += 1
            flow.order.add(message)
        if flow.tell is not None:
            flow.told(kind, message, now)
        return DONE

    # -- looking at it -------------------------------------------------------------------------

    def counts(self, now: float) -> Counts:
        """What has happened until `now`."""
        self._flow.advance(now)
        self._drop_old(now)
        return self._flow.counts

    def depth(self, now: float) -> Depth:
        """How much there is. It takes a look at every event that is neither done nor dead."""
        flow = self._flow
        flow.advance(now)
        self._drop_old(now)
        if not flow.live:
            self._pull(1, now)  # so that a feed does not look like an empty queue
        leased, delayed = flow.leases.messages(), flow.held_back()
        oldest = min((message.born for message in chain(flow.order.waiting(), delayed, leased)), default=None)
        return Depth(
            ready=flow.live - len(leased) - len(delayed),
            delayed=len(delayed),
            leased=len(leased),
            dead=len(flow.dead_letters),
            oldest_age=None if oldest is None else now - oldest,
        )

    def _drop_old(self, now: float) -> None:
        """Drop what waits and is older than the retention. Without a look, it goes when a receive meets it."""
        retention = self.settings.traits.retention
        if retention is None:
            return
        for message in [message for message in self._flow.order.waiting() if message.born + retention <= now]:
            self._flow.drop(message, now)
            self._flow.order.remove(message)


def _delivery(message: Message, receipt: Receipt, leased_until: float, *, counted: bool) -> Delivery:
    attributes = message.attributes
    return Delivery(
        receipt=receipt,
        body=message.body,
        message_id=message.message_id,
        leased_until=leased_until,
        attributes=attributes.copy() if attributes else {},
        content_type=message.content_type,
        key=message.key,
        delivery_count=message.count if counted else None,
        enqueued_at=message.enqueued_at,
    )


def rounded_up(delay: float, granularity: float) -> float:
    """`delay` rounded up to a multiple of `granularity` (0: any), forgiving what is lost in division."""
    return math.ceil(round(delay / granularity, 9)) * granularity if granularity else delay
