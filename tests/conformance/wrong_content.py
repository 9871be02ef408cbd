"""Sinks that change, delay, drop or disorder what they publish, in one way each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from eventkit.spi import DONE, Outgoing, Settled
from eventkit.testing.memory import MemorySink
from tests.conformance.wrong import PassingSink


class ChangingSink(PassingSink):
    """A sink that changes each message on its way."""

    def changed(self, message: Outgoing) -> dict[str, Any]:
        """The fields that are different."""
        raise NotImplementedError

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        return await super().publish(
            [msgspec.structs.replace(message, **self.changed(message)) for message in messages]
        )


# -- content ---------------------------------------------------------------------------------------------


class SinkDecodesBodies(ChangingSink):
    """A body is text, is it not?"""

    fails = ("a_body_of_every_byte_survives",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        return {"body": message.body.decode("utf-8", "replace").encode()}


class SinkStripsBodies(ChangingSink):
    """White space means nothing."""

    fails = ("a_body_of_text_survives",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        return {"body": message.body.strip(b" ")}


class SinkFillsEmptyBodies(ChangingSink):
    """The provider refuses an empty body."""

    fails = ("an_empty_body_survives",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        return {"body": message.body or b" "}


class SinkCutsLongBodies(ChangingSink):
    """The limit is one less than it says."""

    fails = ("the_largest_body_survives",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        limit = self.limits.body
        return {"body": message.body[: limit - 1]} if len(message.body) == limit else {}


class SinkStripsValues(ChangingSink):
    """As headers are."""

    fails = ("attribute_values_survive",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        return {"attributes": {name: value.strip() for name, value in message.attributes.items()}}


class SinkLowersNames(ChangingSink):
    """As headers are."""

    fails = ("attribute_names_survive",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        return {"attributes": {name.lower(): value for name, value in message.attributes.items()}}


class SinkKeepsTenAttributes(ChangingSink):
    """There is no room for more."""

    fails = ("many_attributes_survive",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        return {"attributes": dict([*message.attributes.items()][:10])}


class SinkAssumesJson(ChangingSink):
    """What else would it be?"""

    fails = ("content_types_survive",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        return {"content_type": message.content_type or "application/json"}


class SinkCutsKeys(ChangingSink):
    """A session id has room for 64."""

    fails = ("keys_survive",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        return {"key": message.key and message.key[:64]}


class SinkReplacesSurrogates(ChangingSink):
    """With a question mark."""

    fails = ("text_that_is_not_unicode_survives_or_is_refused",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        plain = {name: value.encode("utf-8", "replace").decode() for name, value in message.attributes.items()}
        return {"attributes": plain}


# -- delays, ids and order -------------------------------------------------------------------------------


class SinkIgnoresDelays(ChangingSink):
    """Now is as good as later."""

    fails = ("a_delayed_message_does_not_come_early",)

    def changed(self, message: Outgoing) -> dict[str, Any]:
        return {"delay": 0.0}


class SinkDeduplicatesContent(PassingSink):
    """What looks the same is the same."""

    fails = ("equal_messages_all_arrive",)

    def __init__(self, inner: MemorySink) -> None:
        super().__init__(inner)
        self._seen: set[bytes] = set()

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        new = [
            message for message in messages if message.body not in self._seen or not message.body.startswith(b"same")
        ]
        self._seen |= {message.body for message in messages}
        await super().publish([message for message in new if len(message.body) <= self.limits.body])
        refused = Settled.refused("too large")
        return [refused if len(message.body) > self.limits.body else DONE for message in messages]


class SinkRefusesARepeat(PassingSink):
    """A repeat is a mistake, it says."""

    fails = ("a_repeated_event_id_is_confirmed",)

    def __init__(self, inner: MemorySink) -> None:
        super().__init__(inner)
        self._ids: set[str] = set()

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        if any(message.event_id in self._ids for message in messages):
            return [Settled.refused("a repeat")] * len(messages)
        self._ids |= {message.event_id for message in messages if message.event_id}
        return await super().publish(messages)


class SinkTurnsBatchesRound(PassingSink):
    """Last in, first out."""

    fails = ("messages_of_a_key_keep_their_order",)

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Settled]:
        return [*await super().publish(messages[::-1])][::-1]
