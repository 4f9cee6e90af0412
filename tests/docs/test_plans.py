"""The example flows are planned up to their first wait, as the page on plans says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ivcap_flows.cli import main

ROOT = Path(__file__).parents[2]
WRITES = {"POST", "PUT", "PATCH", "DELETE"}


@pytest.mark.usefixtures("example_services")
@pytest.mark.parametrize(
    ("flow", "collections", "uploads", "orders"),
    [("coastal_el_nino", 1, 1, 1), ("register_runs", 0, 9, 202), ("order_pipeline", 0, 1, 4)],
)
def test_an_example_is_planned(
    embedded_platform, ivcap_journal, tmp_path, monkeypatch, capsys, flow, collections, uploads, orders
):
    """With all that it would place before it waits, in seconds and without a Prefect server. Nothing is sent."""
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", ivcap_journal.url)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(SystemExit) as ended:
        main(["plan", f"{ROOT / 'flows' / flow}.py:{flow}", "-p", f"output={tmp_path}", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0 and f"needs the results of {orders} request" in said["end"]
    nouns = [effect["noun"] for effect in said["effects"]]
    assert [nouns.count(noun) for noun in ("collection", "upload", "order")] == [collections, uploads, orders]
    asked = [each for each in embedded_platform.requests() if each["method"] in WRITES]
    assert [each["path"] for each in asked if not each["path"].endswith(("/list", "/token"))] == []
