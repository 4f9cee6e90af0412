"""`services`: what can be ordered, what it takes, and a typed module of it."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact
from ivcap_flows.ivcap.parameters import ParameterDef
from ivcap_flows.ivcap.service_module import service_module
from ivcap_flows.ivcap.services import ServiceRecord
from ivcap_flows.tasks import OrderStep, ServiceRequest, place_order, run_orders

TAKEN = frozenset(dir(ServiceRequest)) | {"service", "names"}
EVERY_KIND = ServiceRecord(
    id="urn:ivcap:service:1",
    name="tide-levels.v2",
    description='The tides "as they are", with a back\\slash. ' + "And more. " * 12,
    parameters=[
        ParameterDef(name="level", type="float", default="0.5", unit="m", description="How high."),
        ParameterDef(name="station", type="string"),
        ParameterDef(name="kind", type="option", options=[{"value": "high", "description": "Flood"}, {"value": "low"}]),
        ParameterDef(name="days", type="int", default="many", description='Ends in a quote"'),
        ParameterDef(name="all", type="bool", default="true"),
        ParameterDef(name="sea-level", type="collection", optional=True),
        ParameterDef(name="class", type="artifact", optional=True),
        ParameterDef(name="service", type="other", optional=True),
        ParameterDef(name="model_run", type="string", optional=True),
    ],
)
URN = "urn:ivcap:artifact:1"


def module(path: Path, record: ServiceRecord = EVERY_KIND) -> dict[str, Any]:
    """What the module of a service defines."""
    path.write_text(service_module(record, TAKEN), encoding="utf-8")
    return runpy.run_path(str(path))


def test_services_are_listed_and_shown(ivcap_flows, transcript):
    """By name, with what an order takes: types, defaults, and what must be given. Of a name that is not there, those
    that are near are named."""
    shown = """
$ services
Services
name urn description
…
cli-upper urn:ivcap:service:… cli-upper
…
echo urn:ivcap:service:… Returns its message, at once.
…
$ services echo
echo urn:ivcap:service:…
Returns its message, at once.
Parameters of an order
name type default description
message string required What to return.
Request of a job
name type default description
message string required What to return.
$ services ecko
… 'echo'…
[2]
"""
    transcript(ivcap_flows, shown)
    echo = ivcap_flows("services", "echo", "--json").json
    assert echo["name"] == "echo" and echo["request_schema"]["required"] == ["message"]
    assert {each["name"] for each in ivcap_flows("services", "--json").json} >= {"cli-upper", "echo"}


def test_a_typed_request_is_ordered(ivcap_flows, world, tmp_path, ivcap_journal, prefect_api):
    """The module's class has the service and its parameters; those that were not given are left to the service."""
    path = tmp_path / "services.py"
    path.write_text(ivcap_flows("services", "echo", "--python").out, encoding="utf-8")
    made = runpy.run_path(str(path))["Echo"](message="typed")
    order = place_order(made)
    assert order.service_name == "echo" and order.parameters == {"message": "typed"}
    [done] = run_orders([OrderStep(made)])
    assert done.urn == order.urn
    with pytest.raises(InputError, match="Echo has the parameters"):
        place_order(made, {"message": "more"})


def test_a_class_has_the_parameters_by_their_types(tmp_path):
    """Names that Python does not allow have others, and are sent as they are. What is said of the service is in the
    module, whatever characters it has; one without parameters is refused, since its jobs take a document."""
    cls = module(tmp_path / "tides.py")["TideLevelsV2"]
    artifact = Artifact(urn=URN, platform="p")
    made = cls(station="Callao", kind="low", sea_level="urn:ivcap:collection:1", class_=artifact, service_=5)
    assert made.parameters() == {
        "station": "Callao",
        "kind": "low",
        "sea-level": "urn:ivcap:collection:1",
        "class": artifact,
        "service": 5,
    }
    assert (made.level, made.all, made.days) == (0.5, True, None)
    for wrong in ({"kind": "middle"}, {"station": None}, {"depth": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            cls(**{"station": "Callao", "kind": "low", **wrong})
    text = (tmp_path / "tides.py").read_text(encoding="utf-8")
    assert '"""How high. In m."""' in text and '"""high: Flood."""' in text and "\\\\slash" in text
    assert max(map(len, text.splitlines())) <= 120
    with pytest.raises(InputError, match="prints its JSON schema"):
        module(tmp_path / "none.py", ServiceRecord(id="urn:ivcap:service:1", name="none"))


LETTERS = "ab_-.1 µ\N{GREEK SMALL LETTER MU}²\N{LATIN SMALL LETTER LONG S}K\0\ud800\N{RIGHT-TO-LEFT OVERRIDE}\n\"\\{'"
NAMES = st.sampled_from(
    [
        "class",
        "class_",
        "int",
        "str",
        "float",
        "bool",
        "Literal",
        "Artifact",
        "model_x",
        "copy",
        "true",
        "None",
        "x",
        "x_",
    ]
) | st.text(LETTERS, min_size=1, max_size=4)
VALUES = {
    "string": st.text(LETTERS, max_size=4),
    "int": st.integers(-9, 9).map(str),
    "float": st.sampled_from(["0.5", "inf", "-inf", "1e400", "-0.0", "nan"]),
    "bool": st.sampled_from(["true", "false"]),
}
PARAMETERS = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.builds(
        ParameterDef,
        name=NAMES,
        type=st.just(kind),
        default=st.none() | VALUES[kind],
        optional=st.just(True),
        description=st.none() | st.text(LETTERS, max_size=6),
    )
)


@settings(max_examples=60, deadline=None)
@given(
    name=NAMES,
    description=st.none() | st.text(LETTERS, max_size=9),
    parameters=st.lists(PARAMETERS, min_size=1, max_size=6, unique_by=lambda each: each.name),
)
def test_any_service_makes_a_module(tmp_path_factory, name, description, parameters):
    """Whatever things are called, each is sent by its own name with its value, and defaults are what they were."""
    record = ServiceRecord(id="urn:ivcap:service:1", name=name, description=description, parameters=parameters)
    found = module(tmp_path_factory.mktemp("any") / "services.py", record)
    [cls] = (found[each] for each in found["__all__"])
    values = {"string": "text", "int": 3, "float": 0.25, "bool": False}
    fields = list(cls.model_fields)
    kinds = [cls.model_fields[field].annotation for field in fields]
    made = cls(**{field: values[each.type] for field, each in zip(fields, parameters, strict=True)})
    assert made.service == name and cls().parameters() == {}
    assert made.parameters() == {each.name: values[each.type] for each in parameters}, kinds
    for field, each in zip(fields, parameters, strict=True):
        default = getattr(cls(), field)
        assert default is None if each.default is None else str(default).lower() == read_back(each)


def read_back(parameter: ParameterDef) -> str:
    """A default as Python writes a value of its type."""
    if parameter.type == "float":
        return str(float(parameter.default)).lower()
    return parameter.default.lower()


@pytest.mark.long
def test_the_module_is_checked_by_mypy(tmp_path):
    """It is clean itself, and a wrong use of it is found."""
    module(tmp_path / "tides.py")
    use = "from tides import TideLevelsV2\n\nTideLevelsV2(station='Callao', kind='low')\n"
    (tmp_path / "right.py").write_text(use)
    (tmp_path / "wrong.py").write_text(use.replace("'low'", "'middle'"))
    command = [sys.executable, "-m", "mypy", "--strict", "right.py", "wrong.py", "--config-file", ""]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    faults = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert faults and all(line.startswith("wrong.py:3:") for line in faults), done.stdout
    assert '"kind"' in done.stdout
