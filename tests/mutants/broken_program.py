"""Runs a program on a broken build: `python broken_program.py <name of the mutant> <program> [argument ...]`."""

from __future__ import annotations

import runpy
import sys

__all__ = ["on_build"]


def on_build(name: str | None) -> list[str]:
    """Return what stands before a program in its command, so that it runs on this build; nothing for the right one."""
    return [] if name is None else [__file__, name]


if __name__ == "__main__":
    from mutants import mutate

    _, name, *sys.argv = sys.argv
    mutate(name)
    runpy.run_path(sys.argv[0], run_name="__main__")
