"""The pages of the project, and what is shown in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "flows" / "data" / "README.md"])
PROGRAM = "ivcap-flows"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
_CODE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and where it begins."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    """The page as people call it."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page in these languages."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start()].count("\n") + 1, found[1], found[2])
        for found in _FENCE.finditer(text)
        if found[1] in languages
    ]


@cache
def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline(page: Path) -> Iterator[str]:
    """The inline code of a page."""
    for found in _CODE.finditer(prose(page)):
        yield " ".join(found[1].split())


def shell(page: Path) -> Iterator[str]:
    """The command lines of a page: in console blocks, indented, and inline."""
    for block in blocks(page, "console", "sh", "bash"):
        yield from block.text.replace("\\\n", " ").splitlines()
    yield from (found[1] for found in _INDENTED.finditer(prose(page)))
    yield from inline(page)


def our_commands(page: Path) -> Iterator[list[str]]:
    """The arguments of each `ivcap-flows …` that a page shows; a name alone is no command."""
    for line in shell(page):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if ">" in words:
            del words[words.index(">") :]
        if len(words) > 1 and Path(words[0]).name == PROGRAM:
            yield words[1:]


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
