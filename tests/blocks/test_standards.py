"""Prefect's own standards for blocks, without a network."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite, blocks

from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials

# A square image of the size that the logo's address states.
LOGO = Path(__file__).parent / "data" / "logo-48x48.png"


@pytest.mark.parametrize("block", [IvcapCredentials, ProvenaCredentials])
class TestStandards(BlockStandardTestSuite):
    """Description, documentation, field texts, code example and image."""

    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block

    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The logo's address leads to a file of the same size."""

        def opened(url: str) -> Any:
            assert url.startswith("https://")
            assert url.endswith("-48x48.png")
            return BytesIO(LOGO.read_bytes())

        monkeypatch.setattr(blocks, "urlopen", opened)


@pytest.mark.parametrize(
    ("block", "secret"),
    [
        (IvcapCredentials(url="https://ivcap.example.org", token="s3cret-token"), "token"),
        (ProvenaCredentials(domain="example.org", realm="r", offline_token="s3cret-token"), "offline_token"),
        (ProvenaCredentials(domain="example.org", realm="r", client_secret="s3cret-token"), "client_secret"),
    ],
)
def test_no_text_of_a_block_shows_its_secrets(block, secret):
    """Neither repr nor JSON, nor the client's repr; the block itself has it."""
    shown = [repr(block), str(block), block.model_dump_json(), repr(block.model_dump()), repr(block.get_client())]

    assert "s3cret" not in "".join(shown)
    assert getattr(block, secret).get_secret_value() == "s3cret-token"
