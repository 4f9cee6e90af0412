"""Each threat of docs/explanation/threats.md is held by tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from docs_pages import ROOT

PAGE = ROOT / "docs" / "explanation" / "threats.md"
ENTRIES = re.findall(r"^- \*\*(.+?)\*\*(.*?)(?=^- |^#|\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
"""Name and text of each entry."""


@cache
def functions_of(file: str) -> set[str]:
    """The names of the functions of a file."""
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("entry", "text"), ENTRIES, ids=[entry for entry, _ in ENTRIES])
def test_a_threat_is_held_by_tests_that_exist(entry, text):
    """It names one at least, and each by its file and its function."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert named, f"{entry} names no test"
    assert text.count("::") == len(named), f"{entry} names a test in another form"
    assert [
        f"{file}::{test}" for file, test in named if not test.startswith("test_") or test not in functions_of(file)
    ] == []


def test_no_threat_is_overlooked():
    """Each item of the page's lists is one."""
    assert len(ENTRIES) == len(re.findall(r"^- ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) > 30
