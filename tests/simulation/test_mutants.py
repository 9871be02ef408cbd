"""The mutants fit the core as it is, and what is known of them fits the mutants.

That the simulator notices each of them is shown by `python -m tests.simulation.mutants --known`, in minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.mutants.patches import ROOT, Mutant, PatchError, find, mutated, parsed
from tests.simulation.mutants.trials import copied, known_kills, search, simulate

MUTANTS = find()
EXAMPLES = ("ack-before-effect", "key-runs-side-by-side", "queued-not-released-at-drain")
"""One of each kind that dies at once: an effect, an order, a drain."""

PATCH = """# One is two.
# expects: I1 I2
--- a/module.py
+++ b/module.py
@@ -1,3 +1,3 @@
 first = 0
-second = 1
+second = 2
 third = 3
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text("# moved\nfirst = 0\nsecond = 1\nthird = 3\n")
    return path


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_to_the_core_and_compiles(mutant: Mutant) -> None:
    """A patch that has drifted away, or breaks the grammar, would prove nothing."""
    texts = mutated(mutant, ROOT)

    for path, text in texts.items():
        assert path.is_relative_to(ROOT / "eventkit")
        compile(text, str(path), "exec")


def test_every_mutant_was_noticed_by_an_invariant_that_it_breaks() -> None:
    """`--known` runs the seeds written down: one that is missing, or foreign, would be skipped in silence."""
    known = known_kills()

    assert sorted(known) == [mutant.name for mutant in MUTANTS]
    assert [mutant.name for mutant in MUTANTS if known[mutant.name].invariant not in mutant.expects] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_simulator_notices_a_mutant_at_its_known_seed(name: str) -> None:
    """The whole way, for a few: a copy, broken, before the package that is installed."""
    [mutant] = find([name])
    known = known_kills()[name]

    kill, _ = search(mutant, [known.seeds], limit=15)

    assert kill is not None
    assert kill.invariant in mutant.expects


def test_the_core_as_it_is_survives_a_known_seed() -> None:
    """Otherwise a mutant may be noticed for what is not its fault."""
    with copied() as root:
        assert simulate(root, known_kills()[EXAMPLES[0]].seeds, limit=15) == []


def test_a_hunk_is_found_by_its_text_wherever_it_has_moved(module: Path) -> None:
    """Line numbers would break patches for no reason whenever something above them changes."""
    assert mutated(parsed("twice", PATCH), module.parent) == {
        module: "# moved\nfirst = 0\nsecond = 2\nthird = 3\n",
    }


@pytest.mark.parametrize("text", ["first = 0\nsecond = 1.5\nthird = 3\n", "first = 0\nsecond = 1\nthird = 3\n" * 2])
def test_a_hunk_that_is_not_found_once_is_an_error(module: Path, text: str) -> None:
    """A mutant that changes nothing would survive, and one that changes two places would not be what it says."""
    module.write_text(text)

    with pytest.raises(PatchError, match=r"twice\.patch does not apply: hunk 1 occurs [02] times in module\.py"):
        mutated(parsed("twice", PATCH), module.parent)


@pytest.mark.parametrize("missing", ["# One is two.\n", "# expects: I1 I2\n", "@@ -1,3 +1,3 @@\n"])
def test_a_patch_that_lacks_a_part_is_an_error(missing: str) -> None:
    """Without its sentence and its invariants nobody can tell whether a kill was the right one."""
    with pytest.raises(PatchError, match=r"twice\.patch"):
        parsed("twice", PATCH.replace(missing, ""))


def test_a_header_names_what_is_broken_and_who_may_notice() -> None:
    """The command prints the one and checks the other."""
    mutant = parsed("twice", PATCH)

    assert (mutant.breaks, mutant.expects) == ("One is two.", ("I1", "I2"))
