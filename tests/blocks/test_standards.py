"""Prefect's own standards for blocks, without a network."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite, blocks
from pydantic import ValidationError

from ivcap_flows.blocks import IvcapCollection, IvcapCredentials, IvcapService, ProvenaCredentials

pytestmark = pytest.mark.canary

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [IvcapCredentials, ProvenaCredentials, IvcapService, IvcapCollection]


@pytest.mark.parametrize("block", BLOCKS)
class TestStandards(BlockStandardTestSuite):
    """Description, documentation, field texts, code example and image."""

    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block

    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The logo's address leads to an image of this project."""

        def opened(url: str) -> Any:
            assert url.startswith("https://")
            return BytesIO((DOCS / "images" / url.rpartition("/")[2]).read_bytes())

        monkeypatch.setattr(blocks, "urlopen", opened)

    def test_the_documentation_is_a_page_of_this_project(self, block: type[Block]) -> None:
        assert (DOCS / "how-to" / str(block._documentation_url).rpartition("/")[2]).is_file()

    def test_a_form_that_a_person_can_fill_in(self, block: type[Block]) -> None:
        """Each field has a title, and each that is not a secret, a choice or a block has an example."""
        form = block.model_json_schema()
        definitions = [each for name, each in form.get("definitions", {}).items() if name == "Connection"]
        for properties in (form["properties"], *(each["properties"] for each in definitions)):
            for name, field in properties.items():
                # A field is shown with the title of the model that it refers to.
                model = form.get("definitions", {}).get(field.get("$ref", "").rpartition("/")[2], {})
                assert field.get("title") or model.get("title"), name
                kinds = [field, *field.get("anyOf", ())]
                plain = any(kind.get("type") in ("string", "array", "object") for kind in kinds)
                if plain and not any({"enum", "writeOnly", "$ref"} & set(kind) for kind in kinds):
                    assert field.get("examples"), name

    def test_an_empty_form_is_refused(self, block: type[Block]) -> None:
        """By the form itself, which asks for what is required, and in code."""
        assert block.model_json_schema()["required"]
        with pytest.raises(ValidationError):
            block()


@pytest.mark.parametrize("place", [{"url": "https://ivcap.example.org"}, {"domain": "example.org", "realm": "r"}])
def test_credentials_without_a_login_are_refused(place):
    """Where a platform is does not suffice; the error names the command that stores a login."""
    block = IvcapCredentials if "url" in place else ProvenaCredentials
    with pytest.raises(ValidationError, match=r"There is no (token|login). Log in by `ivcap-flows login"):
        block(**place)


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
