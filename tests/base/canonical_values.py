"""Prints what the package makes of values, whose sets and dicts are filled in an order that follows from ORDER."""

import json
import os
import random
from collections import namedtuple
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture.run_identity import Project, parameters_sha256
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.handles import Artifact, LocalFile
from ivcap_flows.identity import canonical, digest, key_of

ORDER = random.Random(os.environ["ORDER"])


class Colour(Enum):
    RED = "red"
    GREEN = "green"
    BLUE = ("b", 1)


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Point:
    x: float
    at: object


class Leaf(BaseModel):
    model_config = ConfigDict(frozen=True)

    when: datetime
    colours: frozenset[Colour] = Field(default=frozenset(), alias="the-colours")
    price: Decimal = Decimal("1.50")


class Branch(BaseModel):
    model_config = ConfigDict(frozen=True)

    leaves: frozenset[Leaf]
    artifact: Artifact | None = None
    lasts: timedelta = timedelta(hours=1)


Pair = namedtuple("Pair", "left right")


def shuffled(items: Iterable) -> list:
    made = list(items)
    ORDER.shuffle(made)
    return made


def values() -> Iterator:
    for number in range(3, 13):  # none is equal to a level
        # Of the host's own zone, as `astimezone()` gives it.
        here = (datetime(2000, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=997 * number)).astimezone()
        naive = datetime(1999, 12, 31) + timedelta(seconds=86_399 * number)
        items = [
            number,
            f"text {number}",
            Level(1 + number % 2),
            list(Colour)[number % 3],
            Point(number / 7, date(2000, 1, 1 + number)),
            Decimal(number) / 1000,
            UUID(int=number),
            Artifact(urn=f"urn:ivcap:artifact:{number}", platform="p"),
            here,
            (number, f"{number}"),
            Pair(number, frozenset(shuffled([f"{number}", f"x{number}", number]))),
        ]
        colours = {"the-colours": frozenset(shuffled(Colour))}
        leaves = [Leaf(when=here + timedelta(hours=each), **colours) for each in range(4)]
        branch = Branch(leaves=frozenset(shuffled(leaves)), artifact=items[7])
        named = dict(shuffled((f"k{place}", item) for place, item in enumerate(items)))
        moments = [naive, naive.date(), naive.time(), time(1, 2), timedelta(seconds=number / 3), -0.0, 2**53 - 1]
        yield from (*items, set(shuffled(items)), branch, named, [frozenset(shuffled(items[:5])), {number: branch}])
        yield from moments


def printed() -> list[list[str]]:
    file = os.path.abspath(__file__)
    project, here = Project.around(file), Path(file).parent
    lines = []
    for value in values():
        key = key_of(platform="p", account="a", scope="account", noun="n", request=canonical_form(value, "request"))
        given = {
            "value": value,
            "odd": {float("inf"), 2**80, b"bytes"},
            "paths": {here / "data.csv", Path("data.csv"), here},
            "text": str(here / "data.csv"),
            "file": LocalFile(path=str(here / "data.csv"), sha256="0" * 64, size=1),
        }
        given = dict(shuffled(given.items()))
        look = ValueScan()
        shown = {name: look.at(name, each) for name, each in given.items() if name in ("value", "odd")}
        run, code = parameters_sha256(given, project, of="it"), project.code(file, "f")
        lines.append([key, run, code, digest(canonical(shown))])
    return lines


if __name__ == "__main__":
    print(json.dumps(printed()))
