"""The SDK's clients: made once, at start, each with a pool of connections of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import aiobotocore
import botocore
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from anyio.lowlevel import RunVar
from botocore.exceptions import BotoCoreError, InvalidRegionError, NoRegionError, ProfileNotFound

from eventkit.errors import ConfigurationError, UnsupportedByAdapter
from eventkit_sqs._config import Place

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

CONNECT_TIMEOUT: Final = 4.0
ANSWER_TIMEOUT: Final = 10.0
"""Seconds that SQS has for an answer: it takes milliseconds. The core gives a settlement less."""
POLL_TIMEOUT: Final = 4.0
"""Seconds that it has beyond those it is asked to wait: until then a worker whose connection is dead gets nothing."""
SETTLE_CONNECTIONS: Final = 16


# A session takes 60 ms to find out what SQS can do, in which the loop stands still, and finds the credentials: one a
# loop, which its sources and sinks share.
_SESSION: RunVar[AioSession] = RunVar("eventkit_sqs_session")


@asynccontextmanager
async def client(place: Place, *, connections: int, answer_within: float = ANSWER_TIMEOUT) -> AsyncIterator[SQSClient]:
    """A client for the region of `place`. Its calls are made once: whether to repeat one is the core's affair.

    Long polls and settlements have clients of their own: a poll keeps its connection for as long as it waits, and
    the pool has no limit to how long a call waits for one. Raises ConfigurationError.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError as exc:
        raise UnsupportedByAdapter(f"{place.address}: the SDK of SQS runs on asyncio only, not on trio") from exc
    session = _session()
    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=answer_within,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": 1},
        # Together a fifth of what a call costs: what we send is of our making, and who we are does not change.
        parameter_validation=False,
        user_agent=_user_agent(session),
    )
    try:
        context = session.create_client("sqs", region_name=place.region, endpoint_url=place.endpoint, config=config)
        made = await context.__aenter__()
    except NoRegionError as exc:
        raise ConfigurationError(
            f"{place.address} is in which region? Write {place.address}?region=eu-north-1, or set AWS_DEFAULT_REGION"
        ) from exc
    except ProfileNotFound as exc:
        raise ConfigurationError(f"{place.address}: {exc}; AWS_PROFILE names one of ~/.aws/config") from exc
    except (InvalidRegionError, BotoCoreError, ValueError) as exc:
        raise ConfigurationError(f"{place.address}: {exc}") from exc
    try:
        yield made
    finally:
        await context.__aexit__(None, None, None)


def _session() -> AioSession:
    session = _SESSION.get(None)
    if session is None:
        session = get_session()
        _SESSION.set(session)
    return session


def _user_agent(session: AioSession) -> str:
    """Who calls. The SDK makes up its own anew, twice for each call."""
    app = session.get_config_variable("user_agent_appid")
    parts = ["eventkit", f"aiobotocore/{aiobotocore.__version__}", f"botocore/{botocore.__version__}"]
    return " ".join([*parts, f"app/{app}"] if app else parts)
