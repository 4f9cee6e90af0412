"""Prints what the package makes of drawn values: `python canonical_values.py <seed> <count>`.

The values follow from the seed. The order in which sets and dicts are filled follows from ORDER.
"""

import json
import os
import random
import sys
from collections import namedtuple
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture.flow_identity import Project, parameters_sha256
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.handles import Artifact, LocalFile
from ivcap_flows.identity import canonical, digest, key_of


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


class Draw:
    """Values by what `of` says, filled in the order of `order`."""

    def __init__(self, of: random.Random, order: random.Random) -> None:
        self.of, self.order = of, order

    def value(self, depth: int = 0):
        kinds = [self.scalar] if depth > 2 else [self.scalar, self.items, self.object, self.model]
        return self.of.choice(kinds)(depth)

    def scalar(self, depth: int = 0):
        return self.of.choice([self.hashable, self.moment, lambda: self.of.choice([None, True, -0.0, 2**53 - 1])])()

    def hashable(self, depth: int = 0):
        number = self.of.randrange(10**6)
        # Of the host's own zone, as `astimezone()` gives it.
        here = datetime(2000, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=number)
        return self.of.choice(
            [
                number,
                f"text {number}",
                Level(1 + number % 2),
                list(Colour)[number % 3],
                Point(number / 7, date(2000, 1, 1 + number % 28)),
                Decimal(number) / 1000,
                UUID(int=number),
                Artifact(urn=f"urn:ivcap:artifact:{number}", platform="p"),
                here.astimezone(),
                (number, f"{number}"),
                Pair(number, frozenset({f"{number}", f"x{number}", number})),
            ]
        )

    def moment(self, depth: int = 0):
        naive = datetime(1999, 12, 31) + timedelta(seconds=self.of.randrange(10**9))
        return self.of.choice([naive, naive.date(), naive.time(), time(1, 2), timedelta(seconds=self.of.random())])

    def items(self, depth: int):
        made = [self.hashable() for _ in range(self.of.randrange(6))]
        if self.of.random() < 0.3:
            return [self.value(depth + 1) for _ in range(self.of.randrange(4))]
        self.order.shuffle(made)
        return self.of.choice([set, frozenset])(made)

    def object(self, depth: int):
        made = [(self.of.choice([f"k{n}", n]), self.value(depth + 1)) for n in range(self.of.randrange(5))]
        self.order.shuffle(made)
        return dict(made)

    def model(self, depth: int):
        leaves = [self.leaf() for _ in range(self.of.randrange(5))]
        self.order.shuffle(leaves)
        return Branch(leaves=frozenset(leaves), artifact=Artifact(urn=f"urn:a:{self.of.random()}", platform="p"))

    def leaf(self):
        when = datetime(2000, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=self.of.randrange(10**6))
        chosen = self.of.sample(list(Colour), self.of.randrange(4))
        self.order.shuffle(chosen)
        return Leaf(when=when.astimezone(), **{"the-colours": frozenset(chosen)})


def printed(seed: int, count: int) -> list[list[str]]:
    draw = Draw(random.Random(seed), random.Random(os.environ["ORDER"]))
    file = os.path.abspath(__file__)
    project, here = Project.around(file), Path(file).parent
    lines = []
    for _ in range(count):
        value = draw.value()
        key = key_of(platform="p", account="a", scope="account", noun="n", request=canonical_form(value, "request"))
        given = {
            "value": value,
            "odd": {float("inf"), 2**80, b"bytes"},
            "paths": {here / "data.csv", Path("data.csv"), here},
            "text": str(here / "data.csv"),
            "file": LocalFile(path=str(here / "data.csv"), sha256="0" * 64, size=1),
        }
        given = dict(draw.order.sample(list(given.items()), len(given)))
        look = ValueScan()
        shown = {name: look.at(name, each) for name, each in given.items() if name in ("value", "odd")}
        run, code = parameters_sha256(given, project, of="it"), project.code(file, "f")
        lines.append([key, run, code, digest(canonical(shown))])
    return lines


if __name__ == "__main__":
    print(json.dumps(printed(int(sys.argv[1]), int(sys.argv[2]))))
