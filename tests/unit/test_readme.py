"""What the README shows has to run as it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import anyio

from eventkit import BatchHandler
from eventkit.testing import Harness

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """The code of this language, block by block."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_first_handler_does_what_the_readme_says() -> None:
    """It is the first code a newcomer copies: an order is shipped, an empty one skipped."""
    shipped: list[str] = []

    async def ship(order: str) -> None:
        shipped.append(order)

    # Annotations are looked up by name, as they would be in the user's own module.
    namespace: dict[str, Any] = {"__name__": __name__, "ship": ship, "Harness": Harness}
    exec(blocks("python")[0], namespace)
    exec(next(block for block in blocks("python") if "Harness" in block), namespace)

    async def scenario() -> str:
        async with Harness(namespace["ShipOrder"]()) as harness:
            return (await harness.send({"id": "7", "total": 2.5})).kind

    assert anyio.run(scenario) == "ok"
    assert shipped == ["7"]
    anyio.run(namespace["test_an_empty_order_is_skipped"])


def test_the_batch_handler_of_the_readme_is_one_a_worker_takes() -> None:
    """Option names change; the README must not lag behind."""
    code = next(block for block in blocks("python") if "BatchHandler" in block)
    namespace: dict[str, Any] = {"__name__": __name__}
    exec("from contextlib import asynccontextmanager\nfrom eventkit import *\nclass Reading(dict): ...\n", namespace)
    namespace["Reading"] = dict[str, Any]
    exec(code, namespace)

    handler = namespace["StoreReadings"]()

    assert isinstance(handler, BatchHandler)
    assert handler.batching.max_size == 500
    assert tomllib.loads(blocks("toml")[0]).keys() == {"source", "handlers"}
