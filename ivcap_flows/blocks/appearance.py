"""How the blocks look in Prefect's web interface: logos, and the pages that "View Docs" leads to."""

from __future__ import annotations

from typing import Final

__all__ = ["IVCAP_LOGO", "PROVENA_LOGO", "documentation"]

_PROJECT: Final = "ivcap-works/ivcap-flows"
_IMAGES: Final = f"https://raw.githubusercontent.com/{_PROJECT}/main/docs/images"

IVCAP_LOGO: Final = f"{_IMAGES}/block-ivcap-200x200.png"
PROVENA_LOGO: Final = f"{_IMAGES}/block-provena-200x200.png"


def documentation(page: str) -> str:
    """Return the address of a page of `docs/how-to`."""
    return f"https://github.com/{_PROJECT}/blob/main/docs/how-to/{page}.md"
