"""Everything given is looked at: in whatever container it comes, for the record, for secrets, identity and makers."""

import argparse
import contextlib
import dataclasses
import os
from collections import ChainMap, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import attr
import pytest
from pydantic import BaseModel, ConfigDict, RootModel, SecretStr
from pydantic.dataclasses import dataclass as pydantic_dataclass

from ivcap_flows import flow, recorded, task
from ivcap_flows.capture.flow_identity import Project, parameters_sha256
from ivcap_flows.capture.given import Given
from ivcap_flows.capture.makers import claimed, makers_of
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.handles import Artifact


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)


class Nested(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    inner: Open


class Root(RootModel[list[Any]]):
    pass


Named = namedtuple("Named", "thing other")


@dataclasses.dataclass
class Plain:
    thing: Any


@dataclasses.dataclass
class Slotted:
    __slots__ = ("thing",)
    thing: Any


@pydantic_dataclass(config=ConfigDict(arbitrary_types_allowed=True))
class Checked:
    thing: Any


@attr.define
class Attrs:
    thing: Any


CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "list": lambda thing: [thing],
    "tuple": lambda thing: (thing,),
    "deque": lambda thing: deque([thing]),
    "UserList": lambda thing: UserList([thing]),
    "dict": lambda thing: {"thing": thing},
    "OrderedDict": lambda thing: OrderedDict(thing=thing),
    "defaultdict": lambda thing: defaultdict(list, thing=thing),
    "UserDict": lambda thing: UserDict(thing=thing),
    "ChainMap": lambda thing: ChainMap({}, {"thing": thing}),
    "mapping proxy": lambda thing: MappingProxyType({"thing": thing}),
    "values of a dict": lambda thing: {"thing": thing}.values(),
    "items of a dict": lambda thing: {"thing": thing}.items(),
    "named tuple": lambda thing: Named(thing, 1),
    "namespace": lambda thing: SimpleNamespace(thing=thing),
    "arguments": lambda thing: vars(argparse.Namespace(thing=thing)),
    "dataclass": Plain,
    "dataclass with slots": Slotted,
    "dataclass of pydantic": Checked,
    "attrs": Attrs,
    "extra of a model": lambda thing: Open(thing=thing),
    "extra of a nested model": lambda thing: Nested(inner=Open(thing=thing)),
    "root model": lambda thing: Root([thing]),
}
ARTIFACT = Artifact(urn="urn:ivcap:artifact:1", platform="p", name="a", size=1)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_what_a_container_holds_is_looked_at(container):
    """Handles and paths are found, secrets hidden, values belong to the identity of a run and lead to their makers."""
    look = ValueScan()
    look.at("given", container(ARTIFACT))
    look.at("given", container(Path("/some/file")))
    assert [handle for _, handle in look.handles] == [ARTIFACT]
    assert look.paths == [("given", "/some/file" + os.sep)]
    shown = str(ValueScan().at("given", container(SecretStr("a value that is hidden by its type"))))
    assert "hidden by its type" not in shown and "**" in shown
    digests = {parameters_sha256({"given": container(number)}, Project(None)) for number in (1.5, 1.5, 2.5)}
    assert len(digests) == 2
    value = claimed(container(1.5 * len(shown)), "the maker", Given({}), lambda path: False)
    assert list(makers_of(value)) == ["the maker"]


class Options(BaseModel):
    model_config = ConfigDict(extra="allow")
    depth: int = 3


@pytest.mark.catches("extras are not looked at")
def test_what_a_model_allows_beyond_its_fields_is_on_record(tmp_path, edges, prefect_api):
    """A file in an extra is used, and the parameter is there to run the flow again."""
    from ivcap_flows.capture.recorder_registry import journal

    (tmp_path / "raw.csv").write_text("a,b\n1,2\n3,4\n")

    @task
    def read(options: Options) -> int:
        return len(Path(options.source).read_text())  # type: ignore[attr-defined]

    @flow
    def main(options: Options) -> None:
        read(options)

    main(Options(source=str(tmp_path / "raw.csv"), level=7))
    edges({("used", "read", "raw.csv"), ("used", "main[1]", "raw.csv")})
    [run] = journal().runs.recent(1)
    [parameters] = [fact.record for fact in journal().facts.of_run(run.id) if fact.record.type == "parameters"]
    told = parameters.attributes["values"]["options"]
    assert told == {"depth": 3, "source": str(tmp_path / "raw.csv"), "level": 7}


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Raising(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items")

    values = items


def huge() -> int:
    return 10**5000


def raising() -> Any:
    return [Raising(a=1)]


def unsayable() -> None:
    raise Unsayable


@pytest.mark.catches("an end needs words")
@pytest.mark.parametrize("work", [huge, raising, unsayable])
def test_a_call_whose_end_cannot_be_shown_still_ends(work, recorded_graph):
    """Its outcome and time are on record, and so are those of a call that is given its result."""

    @recorded
    def take(value: Any) -> None:
        """Do nothing with it."""

    with contextlib.suppress(Unsayable):
        take(recorded(work)())
    ended = {node.attributes["name"]: node for node in recorded_graph().nodes.values() if node.type == "call"}
    assert ended[work.__name__].attributes["outcome"] == ("failed" if work is unsayable else "completed")
    assert set(ended) == {work.__name__, *({"take"} if work is not unsayable else ())}
    assert all(node.ended is not None for node in ended.values())
