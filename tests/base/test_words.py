"""One word for one thing: what the glossary replaced is written nowhere any more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("ivcap_flows", "flows", "deployments", "benchmarks", "docs", "tests", "README.md", "CHANGELOG.md")
TEXTS = {".py", ".pyi", ".md", ".yaml"}
REPLACED = {
    "embedded platform": r"twins?",
    "idempotency record": r"key.aspects?|AspectKeys",
    "visibility delay": r"settling.times?|still_to_settle|settle=|\.settle(?!\()|`settle`",
    "heartbeat": r"(start|stop)_beating|BEAT_SECONDS|beat_at|beats?",
    "watchlist": r"lookouts?|poll.leaders?|sightings?|poll.status(es)?",
    "late duplicate": r"latecomers?",
    "delivered exactly once": r"effective.once",
    "recorded automatically": r"recorded by itself",
}
"""Word of the glossary -> what stood for the same thing before."""


def texts() -> list[Path]:
    found = [ROOT / place for place in PLACES]
    inner = [path for place in found if place.is_dir() for path in place.rglob("*")]
    return [path for path in (*found, *inner) if path.suffix in TEXTS and path != Path(__file__)]


@pytest.mark.parametrize("word", REPLACED)
def test_what_a_word_replaced_is_written_nowhere(word: str) -> None:
    """Neither in code, nor in tests, nor in pages."""
    before = re.compile(rf"(?<![\w-])(?:{REPLACED[word]})(?![\w-])", re.IGNORECASE)
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if before.search(line)
    ]
    assert lines == []


def test_the_glossary_has_the_words() -> None:
    """Each is a row of it, or within one."""
    glossary = (ROOT / "docs/reference/glossary.md").read_text(encoding="utf-8").lower()
    phrases = {"delivered exactly once", "recorded automatically"}
    assert [word for word in REPLACED if word not in phrases and word not in glossary] == []
