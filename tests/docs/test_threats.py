"""Each threat of docs/explanation/threats.md is held by tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache

from docs_pages import ROOT

PAGE = ROOT / "docs" / "explanation" / "threats.md"
ENTRIES = re.findall(r"^- \*\*(.+?)\*\*(.*?)(?=^- |^#|\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
"""Name and text of each entry."""


@cache
def functions_of(file: str) -> set[str]:
    """The names of the functions of a file."""
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_a_threat_is_held_by_tests_that_exist():
    """It names one at least, and each by its file and its function."""
    faults = []
    for entry, text in ENTRIES:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
        if not named or text.count("::") != len(named):
            faults.append(f"{entry} names no test, or one in another form")
        faults += [f"{entry} names {file}::{test}" for file, test in named if test not in functions_of(file)]
    assert faults == []


def test_no_threat_is_overlooked():
    """Each item of the page's lists is one."""
    assert len(ENTRIES) == len(re.findall(r"^- ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) > 30
