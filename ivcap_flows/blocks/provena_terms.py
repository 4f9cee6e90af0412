"""Terms of datasets as a Prefect block, which a team states once."""

from __future__ import annotations

from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict

from ivcap_flows.blocks.appearance import PROVENA_LOGO, documentation, form
from ivcap_flows.provena.terms import Terms

__all__ = ["ProvenaTerms"]


class ProvenaTerms(Block, Terms):
    """What a team states about the datasets that Provena gets: owner, publisher, licence, approvals.

    Example:
        Load saved terms and pass them to a task:
        ```python
        from ivcap_flows.blocks import ProvenaTerms

        terms = ProvenaTerms.load("BLOCK_NAME")
        ```
    """

    model_config = ConfigDict(extra="forbid", frozen=False)
    _block_type_name = "Provena Terms"
    _block_type_slug = "provena-terms"
    _logo_url: ClassVar[Any] = PROVENA_LOGO
    _documentation_url: ClassVar[Any] = documentation("register-a-model-run")

    # Code may leave out each, for what a workflow of its own states.
    __get_pydantic_json_schema__ = form("license", "approvals")
