"""The broken builds break what the package has: one whose name is gone would only be missed in the long tests."""

from __future__ import annotations

import pytest
from mutants import MUTANTS, mutate


@pytest.mark.parametrize("name", MUTANTS)
def test_each_broken_build_can_be_made(name, monkeypatch):
    mutate(name, monkeypatch.setattr)
