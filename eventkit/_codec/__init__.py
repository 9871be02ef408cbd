"""Step 4 of the path: a delivery's bytes become an event. Everything read here is hostile.

`Codec.read` gives the envelope (id, source, type, …), `Codec.decoder` the typed data; `encode` is the way back.
Nothing in a message chooses code to run: the formats are CloudEvents, JSON and raw bytes, and no other.
"""

from eventkit._codec._codec import Codec
from eventkit._codec._encode import CloudEvent, encode
from eventkit._codec._envelope import Envelope
from eventkit._codec._options import Decoding

__all__ = ["CloudEvent", "Codec", "Decoding", "Envelope", "encode"]
