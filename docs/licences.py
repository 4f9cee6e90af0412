"""The packages that pip installs with `ivcap-flows` and its extras, and their licences, from their own metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

CONSTRAINTS: Final = Path(__file__).parents[1] / "constraints.txt"

NO_VERSION: Final = SpecifierSet("<0,>0")

SPDX: Final = {
    "Apache 2": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Artistic License": "Artistic-1.0-Perl",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT Licence": "MIT",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The MIT License (MIT)": "MIT",
}
"""Older words of metadata -> identifier. The classifier "BSD License" does not say which one."""

VAGUE: Final = {"", "BSD", "Dual License"}
"""What the field "License" may say while the classifiers say more."""


@dataclass(frozen=True)
class Brought:
    """A package that is installed with `ivcap-flows`; `extras` are those that bring it, none if it always comes."""

    name: str
    version: str
    licence: str
    extras: tuple[str, ...]


def brought() -> list[Brought]:
    """Return what is installed here because `ivcap-flows` or one of its extras asks for it, by name."""
    always = _closure(())
    by_extra = {extra: _closure((extra,)) for extra in metadata.metadata("ivcap-flows").get_all("Provides-Extra", [])}
    names = sorted(always.union(*by_extra.values()) - {"ivcap-flows"})
    return [
        _brought(name, () if name in always else tuple(e for e in by_extra if name in by_extra[e])) for name in names
    ]


def _brought(name: str, extras: tuple[str, ...]) -> Brought:
    distribution = metadata.distribution(name)
    return Brought(distribution.metadata["Name"], distribution.version, licence(distribution.metadata), extras)


def _closure(extras: tuple[str, ...]) -> set[str]:
    """Return the names of what `ivcap-flows` with these extras needs, and of what that needs."""
    found, wanted = set(), [("ivcap-flows", extras)]
    while wanted:
        one = name, asked = wanted.pop()
        if one in found:
            continue
        found.add(one)
        wanted += [
            (canonicalize_name(each.name), tuple(sorted(each.extras)))
            for each in _requirements(name)
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *asked))
        ]
    return {name for name, _ in found}


@cache
def _requirements(name: str) -> list[Requirement]:
    return [*map(Requirement, metadata.requires(name) or ())]


def licence(told: metadata.PackageMetadata) -> str:
    """Return what a package says of its licence: an SPDX expression if it has one, else words of older metadata."""
    if told.get("License-Expression"):
        return str(told["License-Expression"])
    field = (told.get("License") or "").strip()
    first, _, text = field.partition("\n")
    if field not in VAGUE and (first in SPDX or not text):
        return SPDX.get(first, first)
    classifiers = [each for each in told.get_all("Classifier", []) if each.startswith("License :: ")]
    words = {each.rpartition(" :: ")[2] for each in classifiers}
    # Of several, a user may choose: so it is with each package that has no newer metadata.
    return " OR ".join(sorted(SPDX.get(word, re.sub(r"\W+", "-", word).strip("-")) for word in words)) or "NOASSERTION"


def as_pinned() -> bool:
    """Whether all that is installed here has the versions of constraints.txt."""
    pins = map(Requirement, CONSTRAINTS.read_text(encoding="utf-8").splitlines())
    pinned = {canonicalize_name(pin.name): pin.specifier for pin in pins if not pin.marker or pin.marker.evaluate()}
    return all(each.version in pinned.get(canonicalize_name(each.name), NO_VERSION) for each in brought())
