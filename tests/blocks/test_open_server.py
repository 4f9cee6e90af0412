"""What Prefect's own server gives to whom, as docs/explanation/threats.md says it; a canary for when that changes."""

from __future__ import annotations

import httpx
import pytest

from ivcap_flows.blocks import IvcapCredentials

pytestmark = pytest.mark.canary

PAGE = {"Origin": "http://evil.example"}


def test_any_page_reads_blocks_from_a_server_without_a_login(prefect_server, prefect_api):
    """Neither asks it who calls, nor does it keep a browser from giving the answer to the page of another site."""
    token = "s3cret-of-a-block-0123456789"
    IvcapCredentials(url="https://ivcap.example", token=token).save("open-to-all", overwrite=True)
    url = f"{prefect_server['PREFECT_API_URL']}/block_documents/filter"
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    asked = httpx.options(url, headers=PAGE | wanted)
    assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] in ("*", PAGE["Origin"])
    given = httpx.post(url, headers=PAGE, json={"include_secrets": True})
    assert token in given.text and given.headers["access-control-allow-origin"] == "*"
