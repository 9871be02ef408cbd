"""`eventkit.toml`: every mistake at once, each with its file, its key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventkit import Backoff, Decoding, FlowLimits
from eventkit.cli._config import load, merged
from eventkit.cli._settings import Log
from eventkit.errors import ConfigurationError

MINIMAL = 'source = "memory://orders"\n'


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("eventkit.toml")


def problems(config: Path, text: str, profile: str | None = None) -> list[str]:
    config.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(config, profile)
    return list(caught.value.problems)


def test_one_line_is_a_configuration(config: Path) -> None:
    """Everything but the source has a default, the same as that of `Worker`."""
    config.write_text(MINIMAL)

    settings = load(config, None).settings

    assert settings.source == "memory://orders"
    assert (settings.retry, settings.limits, settings.decoding) == (Backoff(), FlowLimits(), Decoding())
    assert (settings.drain, settings.lease, settings.max_processing) == (20.0, 30.0, 600.0)


def test_every_key_reaches_its_option(config: Path) -> None:
    """A key that is read and dropped is worse than one that is refused."""
    config.write_text(
        """
        source = "memory://orders"
        handlers = ["a:B"]
        dead_letter = "discard"
        ordering = "key"
        on_key_failure = "skip"
        unroutable = "skip"
        drain = 1
        lease = 2.5
        max_processing = 3
        [retry]
        initial = 1
        factor = 3
        maximum = 9
        attempts = "age"
        max_age = 60
        [limits]
        in_flight = 4
        in_flight_bytes = 5
        parked = 0
        [decoding]
        format = "json"
        max_bytes = 6
        [log]
        format = "json"
        level = "debug"
        """
    )

    settings = load(config, None).settings

    assert dict(settings) == {
        "source": "memory://orders",
        "handlers": ["a:B"],
        "dead_letter": "discard",
        "ordering": "key",
        "on_key_failure": "skip",
        "unroutable": "skip",
        "drain": 1.0,
        "lease": 2.5,
        "max_processing": 3.0,
        "retry": Backoff(initial=1, factor=3, maximum=9, attempts="age", max_age=60),
        "limits": FlowLimits(in_flight=4, in_flight_bytes=5, parked=0),
        "decoding": Decoding(format="json", max_bytes=6),
        "log": Log(format="json", level="debug"),
    }


def test_a_profile_is_laid_over_the_rest(config: Path) -> None:
    """How a cloud is swapped: one table says what differs, key by key."""
    config.write_text(
        MINIMAL + "[retry]\ninitial = 3\nattempts = 2\n"
        '[profiles.cloud]\nsource = "sqs://orders"\n[profiles.cloud.retry]\nattempts = 7\n'
    )

    assert load(config, None).settings.retry == Backoff(initial=3, attempts=2)
    assert load(config, "cloud").settings.source == "sqs://orders"
    assert load(config, "cloud").settings.retry == Backoff(initial=3, attempts=7)


def test_merging_changes_neither_side() -> None:
    """Two profiles may be read in one process."""
    below, above = {"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"y": 3}, "b": [2]}

    assert merged(below, above) == {"a": {"x": 1, "y": 3}, "b": [2]}
    assert (below, above) == ({"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"y": 3}, "b": [2]})


def test_all_mistakes_are_told_at_once(config: Path) -> None:
    """Mending one and starting again, six times over, is how people learn to hate a tool."""
    found = problems(
        config,
        """
        sorce = "memory://orders"
        ordering = "keys"
        lease = -1
        attempts = 3
        handlers = "orders:Ship"
        [retry]
        factor = 0.5
        initial = -2
        [limits]
        in_flight = 1.5
        [log]
        lvl = "info"
        """,
    )

    assert sorted(found) == [
        "eventkit.toml: attempts: unknown key here; did you mean retry.attempts?",
        "eventkit.toml: handlers: must be an array, found a string",
        "eventkit.toml: lease: must be more than 0, found -1",
        "eventkit.toml: limits.in_flight: must be a whole number, found 1.5",
        "eventkit.toml: log.lvl: unknown key; did you mean log.level?",
        'eventkit.toml: ordering: must be "none" or "key", found a string',
        "eventkit.toml: retry.factor: must be at least 1, found 0.5",
        "eventkit.toml: retry.initial: must be zero or more seconds, found -2.0",
        "eventkit.toml: sorce: unknown key; did you mean source?",
        'eventkit.toml: source: is missing; write for example source = "sqlite:///events.db?queue=events"',
    ]


def test_the_alternatives_of_a_key_are_one_mistake(config: Path) -> None:
    """`attempts` may be two things; being neither is one mistake."""
    found = problems(config, MINIMAL + "[retry]\nattempts = true\n")

    assert found == ['eventkit.toml: retry.attempts: must be a whole number or "age", found true or false']


def test_a_mistake_in_a_profile_is_named_where_it_stands(config: Path) -> None:
    """`retry.initial` of which profile? The one it was written in."""
    found = problems(config, MINIMAL + "[retry]\nfactor = 0\n[profiles.cloud.retry]\ninitial = 'soon'\n", "cloud")

    assert found == ["eventkit.toml: profiles.cloud.retry.initial: must be a number, found a string"]


def test_no_text_of_the_file_is_shown(config: Path) -> None:
    """Somebody will put a connection string into the wrong key, and the error into a ticket."""
    secret = "Endpoint=sb://x;SharedAccessKey=hunter2"

    found = problems(
        config, f'source = "{secret}"\nlease = "{secret}"\nordering = "{secret}"\n[retry]\nattempts = "{secret}"\n'
    )

    assert len(found) == 3
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source = ?", "eventkit.toml is not TOML: Invalid value (at line 1, column 10)"),
        ('source = "a"\nretry = 3\n', "eventkit.toml: retry: must be a table, found 3"),
        ('source = ""\n', "eventkit.toml: source: must be a string that is not empty, found a string"),
        ("source = 1979-05-27\n", "eventkit.toml: source: must be a string, found a date"),
        (MINIMAL + "handlers = [1]\n", "eventkit.toml: handlers.0: must be a string, found 1"),
        (MINIMAL + "lease = inf\n", "eventkit.toml: lease: must be a finite number, found inf"),
        (MINIMAL + "[profile.x]\n", "eventkit.toml: profile: unknown key; did you mean profiles?"),
    ],
)
def test_each_kind_of_mistake_says_what_is_allowed(config: Path, text: str, said: str) -> None:
    """In the words of the file, not of a validation library."""
    assert problems(config, text) == [said]


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("clou", 'eventkit.toml: no profile "clou"; profiles: cloud, local; did you mean "cloud"?'),
        ("x", 'eventkit.toml: no profile "x"; profiles: cloud, local'),
    ],
)
def test_a_wrong_profile_lists_those_there_are(config: Path, profile: str, said: str) -> None:
    """The name is typed by hand, and by whoever did not write the file."""
    assert problems(config, MINIMAL + "[profiles.cloud]\n[profiles.local]\n", profile) == [said]


def test_without_a_file_it_says_what_to_write(config: Path) -> None:
    """The first command of a newcomer fails here: it must be the last time."""
    with pytest.raises(ConfigurationError) as caught:
        load(config, None)

    assert f"there is no eventkit.toml in {config.absolute().parent}" in str(caught.value)
    assert "handlers = [" in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_clear_error(config: Path) -> None:
    """A folder of that name, or a file in another encoding."""
    config.mkdir()
    with pytest.raises(ConfigurationError, match=r"eventkit\.toml cannot be read: Is a directory"):
        load(config, None)
    config.rmdir()
    config.write_bytes(b'source = "\xff"')
    with pytest.raises(ConfigurationError, match=r"eventkit\.toml is not UTF-8 text \(byte 10\)"):
        load(config, None)
