"""How questions to the management API travel. Importing this costs what the SDK's HTTP costs: see `_managed`."""

from __future__ import annotations

from typing import Any, Final

from azure.core.pipeline.transport import AioHttpTransport

_BEARER: Final = "Bearer "
_SIGNATURE: Final = "SharedAccessSignature "


class Transport(AioHttpTransport):  # type: ignore[misc] # it is found by name, and has no type
    """The SDK's own, but for two things that it cannot be told: an emulator without TLS, and a signature."""

    def __init__(self, *, plain: bool) -> None:
        super().__init__(use_env_settings=not plain)  # an emulator is not reached by a proxy
        self._plain = plain

    async def send(self, request: Any, **options: Any) -> Any:
        """See `AioHttpTransport.send`."""
        if self._plain:
            request.url = request.url.replace("https://", "http://", 1)
        token = request.headers.get("Authorization", "")
        if token.startswith(_BEARER + _SIGNATURE):
            # The SDK takes the signature of a connection string for a token of Entra ID, which the service refuses.
            request.headers["Authorization"] = token.removeprefix(_BEARER)
        return await super().send(request, **options)


def transport(*, plain: bool) -> Transport:
    """A transport of one client; `plain` is without TLS."""
    return Transport(plain=plain)
