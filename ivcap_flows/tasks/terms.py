"""The terms of datasets that a task is given: themselves, a file of them, or the name of a saved block."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from ivcap_flows.errors import InputError
from ivcap_flows.threads import FILES

if TYPE_CHECKING:
    from ivcap_flows.provena.terms import Terms

__all__ = ["TermsLike", "terms_of"]

TermsLike: TypeAlias = Union["Terms", Path, str, None]
"""Terms; the path of a YAML file with them, a text if it ends in `.yaml` or `.yml`; or the name of a saved block
`ProvenaTerms`."""


async def terms_of(given: TermsLike) -> Terms | None:
    """Return the terms. Raises InputError for a file that cannot be used, ConfigurationError for an unknown block."""
    from ivcap_flows.blocks.load import load_block
    from ivcap_flows.blocks.provena_terms import ProvenaTerms
    from ivcap_flows.provena.terms import Terms
    from ivcap_flows.registration.yaml_file import read_terms

    if given is None or isinstance(given, Terms):
        return given
    if isinstance(given, Path) or (isinstance(given, str) and given.endswith((".yaml", ".yml"))):
        return await FILES.run(read_terms, Path(given))
    if isinstance(given, str):
        return await load_block(ProvenaTerms, given)
    raise InputError(f"Give Terms, the path of a YAML file, or the name of a block ProvenaTerms, not {given!r:.100}.")
