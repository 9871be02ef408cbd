"""Publishing to a queue or topic."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from typing import Final
from uuid import uuid4

from eventkit.spi import UNKNOWN, Limits, Outgoing, Settled
from eventkit_servicebus._config import Place
from eventkit_servicebus._content import Message, Refused, message_of
from eventkit_servicebus._errors import partly
from eventkit_servicebus._outbox import Outbox

_FOR_ALL: Final = 16
"""Sessions, taken in turn, for what has no key: one each would have to be accepted one by one, and sent one by one."""


class ServicebusSink:
    """A queue or topic to publish to. See `eventkit.spi.Sink`."""

    def __init__(self, limits: Limits, place: Place, outbox: Outbox) -> None:
        self.limits = limits
        self._place = place
        self._outbox = outbox
        self._turns = count()

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        """See `Sink.publish`. A delayed message is stored at once, and delivered when it is due."""
        results: list[Settled] = [UNKNOWN] * len(messages)
        made: list[tuple[int, Message]] = []
        now, most, sessions = time.time(), self._outbox.most, self._place.sessions is not None
        for position, message in enumerate(messages):
            if len(message.body) > self.limits.body:
                text = f"the body has {len(message.body):,} bytes, over the limit of {self.limits.body:,}"
                results[position] = Settled.refused(text)
                continue
            alone = str(next(self._turns) % _FOR_ALL)
            written = message_of(message, most=most, sessions=sessions, token=uuid4().hex, now=now, alone=alone)
            if isinstance(written, Refused):
                results[position] = Settled.refused(written.cause)
            else:
                made.append((position, written))
        answers = partly(await self._outbox.send([message for _, message in made]))
        for (position, _), answer in zip(made, answers, strict=True):
            results[position] = answer
        return results
