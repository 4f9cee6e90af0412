"""The licences of what pip installs with the package."""

from __future__ import annotations

import re
from email.message import Message

import licences
import pytest

PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0"),
    *("MIT-CMU", "PSF-2.0", "PostgreSQL", "Unlicense", "Zlib"),
}
WITH_CONDITIONS = {
    "Artistic-1.0-Perl": "asks nothing of who only uses it",
    "MPL-2.0": "covers the files of the package alone, which are unchanged",
}
LGPL = {
    "psycopg": "only an extra brings it, and it is imported as a library that the user can replace",
    "psycopg-binary": "the same, compiled",
}
"""Each licence, and each package under the LGPL, that goes with a program under Apache-2.0, and why."""


def goes(package: str, expression: str) -> bool:
    """Whether a package under this SPDX expression may be asked for."""
    accepted = PERMISSIVE | set(WITH_CONDITIONS) | ({"LGPL-3.0-only"} if package in LGPL else set())
    words = re.findall(r"[()]|[^\s()]+", expression)
    known = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    return bool(eval(" ".join(known.get(word, str(word in accepted)) for word in words)))


@pytest.fixture(scope="module")
def brought():
    return licences.brought()


@pytest.mark.skipif(not licences.as_pinned(), reason="older and newer versions may say it in other words")
def test_each_licence_goes_with_apache(brought):
    """A new dependency under another licence has to be thought about; one that does not state any is not asked for."""
    assert [each for each in brought if not goes(each.name, each.licence)] == []


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([("License-Expression", "MIT AND PSF-2.0"), ("License", "x")], "MIT AND PSF-2.0"),
        ([("License", "BSD-3-Clause"), ("Classifier", "License :: OSI Approved :: BSD License")], "BSD-3-Clause"),
        ([("License", "MIT License\n\nCopyright …")], "MIT"),
        ([("License", "Copyright …\n\nText"), ("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        (
            [("Classifier", "License :: OSI Approved :: GNU General Public License v3 (GPLv3)")],
            "GNU-General-Public-License-v3-GPLv3",
        ),
        ([("License", "Dual License")], "NOASSERTION"),
        ([], "NOASSERTION"),
    ],
)
def test_what_metadata_say_of_a_licence(headers, said):
    """The newest field counts; a text is no name of a licence."""
    message = Message()
    for name, value in headers:
        message[name] = value
    assert licences.licence(message) == said


def test_all_that_is_asked_for_is_in_the_list(brought):
    """What everybody gets has no extra; what an extra brings names it."""
    found = {each.name.lower(): each.extras for each in brought}
    assert found["prefect"] == found["sqlalchemy"] == found["starlette"] == ()
    assert found["psycopg"] == found["psycopg-binary"] == ("postgres",)
    assert "pytest" not in found and "ivcap-flows" not in found
