"""The shipped deployments, as a worker on any machine has them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.server.schemas.schedules import CronSchedule

from flows.coastal_el_nino import coastal_el_nino
from flows.order_pipeline import order_pipeline
from flows.register_runs import register_runs

ROOT = Path(__file__).parents[2]
SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS: dict[str, dict[str, Any]] = {each["name"]: each for each in SHIPPED["deployments"]}


def flow_of(name: str) -> Any:
    module, _, function = DEPLOYMENTS[name]["entrypoint"].partition(":")
    return getattr(import_module(module), function)


def test_each_example_is_deployed():
    """Under a name that says what it is for. A second run, or one that wakes, waits for its place instead of being
    cancelled; none fails on purpose; and the form of the web interface explains each parameter."""
    examples = {"monthly-index": coastal_el_nino, "seasons": order_pipeline, "base-periods": register_runs}
    assert {name: flow_of(name) for name in examples} == examples
    assert SHIPPED["pull"] == []
    for name, example in examples.items():
        assert DEPLOYMENTS[name]["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert all(parameter.get("description") for parameter in example.parameters.properties.values())
    assert DEPLOYMENTS["seasons"]["parameters"]["breakdowns"] == 0
    assert order_pipeline.parameters.properties["breakdowns"]["default"] == 0


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_says_nothing_of_the_machine_that_deploys_it(name):
    """Neither its parameters nor the defaults in the form of the web interface are absolute paths."""
    entry = flow_of(name)
    assert isinstance(entry, Flow)
    assert set(DEPLOYMENTS[name]["parameters"]) <= set(entry.parameters.properties)
    said = json.dumps([DEPLOYMENTS[name]["parameters"], entry.parameters.model_dump(mode="json")])
    assert str(ROOT) not in said and str(Path.home()) not in said and '"/' not in said


async def test_the_index_comes_once_a_month():
    """On a day of each month, after NOAA's update."""
    [schedule] = DEPLOYMENTS["monthly-index"]["schedules"]
    cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    times = await cron.get_dates(12, start=datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert [time.month for time in times] == list(range(1, 13))
