"""Receives that wait: each is answered as soon as there is something, in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eventkit_sqs._local._errors import SqsError
from eventkit_sqs._local._stored import Taken


class _Poll(NamedTuple):
    limit: int
    lease: float
    answer: asyncio.Future[Sequence[Taken]]


class Polls:
    """The long polls of one queue.

    Messages are taken for a poll only while it waits, and given back if its client goes away before it has them.
    """

    def __init__(
        self,
        take: Callable[[int, float], Sequence[Taken]],
        give_back: Callable[[Sequence[Taken]], None],
        seconds_to_next: Callable[[], float],
    ) -> None:
        self._take = take
        self._give_back = give_back
        self._seconds_to_next = seconds_to_next
        self._waiting: deque[_Poll] = deque()
        self._loop = asyncio.get_running_loop()
        self._serving: asyncio.Handle | None = None
        self._ended = False

    def ring(self) -> None:
        """There may be something now, or something to wait for sooner."""
        if self._waiting:
            self._serve_after(0.0)

    async def receive(self, limit: int, lease: float, wait: float) -> Sequence[Taken]:
        """Up to `limit` messages, as soon as there is one. Cancelled, it has taken none. Raises SqsError."""
        found = self._take(limit, lease)
        if found or not wait or self._ended:
            return found
        poll = _Poll(limit, lease, self._loop.create_future())
        self._waiting.append(poll)
        self._serve_after(self._seconds_to_next())
        timer = self._loop.call_later(wait, _answer, poll, ())
        try:
            return await poll.answer
        except asyncio.CancelledError:
            if poll.answer.done() and not poll.answer.cancelled() and poll.answer.exception() is None:
                self._give_back(poll.answer.result())
            raise
        finally:
            timer.cancel()
            if poll in self._waiting:
                self._waiting.remove(poll)

    def end(self, error: SqsError | None = None) -> None:
        """Answer all that wait, and let none wait any more."""
        self._ended = True
        if self._serving is not None:
            self._serving.cancel()
        for poll in self._waiting:
            _answer(poll, error or ())

    def _serve_after(self, seconds: float) -> None:
        if seconds > 86_400:
            return
        if self._serving is not None:
            self._serving.cancel()
        self._serving = self._loop.call_later(seconds, self._serve)

    def _serve(self) -> None:
        self._serving = None
        while self._waiting:
            poll = self._waiting[0]
            found = () if poll.answer.done() else self._take(poll.limit, poll.lease)
            if not found and not poll.answer.done():
                # Not before the clock has moved: what is due now was taken into account.
                self._serve_after(max(0.001, self._seconds_to_next()))
                return
            self._waiting.popleft()
            if found:
                _answer(poll, found)


def _answer(poll: _Poll, answer: Sequence[Taken] | SqsError) -> None:
    if poll.answer.done():
        return
    if isinstance(answer, SqsError):
        poll.answer.set_exception(answer)
    else:
        poll.answer.set_result(answer)
