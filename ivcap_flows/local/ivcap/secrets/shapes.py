"""Schemas of secrets (IVCAP OpenAPI 0.48: SecretResultT, SetSecretRequestT, SecretListItem)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.shapes import TEXT, WHOLE, Body, listed, maybe, record

__all__ = ["LIST", "SECRET", "SETTING"]

_NAME: Final = {"type": "string", "minLength": 1}

SETTING: Final = Body(
    record(
        {"secret-name": _NAME, "secret-value": _NAME, "expiry-time": {**WHOLE, "minimum": 0}},
        {"secret-type": maybe(TEXT)},
    )
)
SECRET: Final = Body(record({"secret-name": TEXT, "secret-value": TEXT, "expiry-time": WHOLE}))
LIST: Final = listed(record({"secret-name": TEXT, "expiry-time": WHOLE}), at_time=False)
