"""Who holds what, and until when."""

from __future__ import annotations

import math

from eventkit.testing.memory._values import Message


class Leases:
    """The leases of one queue, by receipt.

    No heap, nothing per lease but one entry of a dict: leases of one length end in the order they were
    taken, so each length has an insertion-ordered dict (a *term*) whose first entry is the first to end.
    Sources use one length, and hardly ever two; an odd length costs every lookup one step while it lasts.
    """

    __slots__ = ("_terms", "_twins")

    def __init__(self) -> None:
        self._terms: dict[float, dict[int, Message]] = {}
        self._twins: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._terms.values()))

    def term(self, length: float) -> dict[int, Message]:
        """The leases of `length` seconds, to add one at its end. Good until the next call of this method."""
        term = self._terms.get(length)
        if term is None:
            if len(self._terms) >= 4:
                self._terms = {length: term for length, term in self._terms.items() if term}
            term = self._terms[length] = {}
        return term

    def pop(self, receipt: int) -> Message | None:
        """End the lease of `receipt`; None if there is none."""
        for term in self._terms.values():
            message = term.pop(receipt, None)
            if message is not None:
                return message
        twin = self._twins.get(receipt) if self._twins else None
        return next((term.pop(twin) for term in self._terms.values() if twin in term), None) if twin else None

    def find(self, receipt: int) -> Message | None:
        """What is leased under `receipt`; None if there is nothing, or it has a twin."""
        messages = (term[receipt] for term in self._terms.values() if receipt in term)
        return next(messages, None) if receipt not in self._twins else None

    def twin(self, receipt: int, other: int) -> None:
        """Let `other` be as good as `receipt`: one lease, which whoever comes first ends for both."""
        self._twins[receipt], self._twins[other] = other, receipt

    def over(self, now: float) -> list[tuple[float, int, Message]]:
        """(end, receipt, message) of each lease that has ended at `now`. They stay until popped."""
        ended = []
        for term in self._terms.values():
            for receipt, message in term.items():
                if message.until > now:
                    break
                ended.append((message.until, receipt, message))
        return ended

    def first_end(self) -> float:
        """When the next lease ends; infinity if there is none."""
        return min((next(iter(term.values())).until for term in self._terms.values() if term), default=math.inf)

    def messages(self) -> list[Message]:
        """Every message that is leased."""
        return [message for term in self._terms.values() for message in term.values()]
