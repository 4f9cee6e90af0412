"""The Prefect server that the tests share keeps none of its clients waiting for another try."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytestmark = [pytest.mark.canary, pytest.mark.e2e]


def test_clients_that_write_at_once_are_not_refused(prefect_server):
    api = prefect_server["PREFECT_API_URL"]
    flow = httpx.post(f"{api}/flows/", json={"name": "at once"}, timeout=60).json()["id"]

    def begin(_: int) -> int:
        body = {"flow_id": flow, "state": {"type": "PENDING"}}
        return httpx.post(f"{api}/flow_runs/", json=body, timeout=60).status_code

    with ThreadPoolExecutor(8) as clients:
        assert set(clients.map(begin, range(24))) == {201}
