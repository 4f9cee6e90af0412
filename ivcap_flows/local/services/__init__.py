"""The built-in services of the embedded platform."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["BUILT_IN"]


def _definition(name: str, description: str, parameter: str, kind: str, meaning: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "policy": "urn:ivcap:policy:ivcap.open.service",
        "controller-schema": "urn:ivcap-flows:schema:service.local.1",
        "controller": {
            "$schema": "urn:ivcap-flows:schema:service.local.1",
            "entry": f"ivcap_flows.local.services.{name}:run",
        },
        "parameters": [{"name": parameter, "description": meaning, "type": kind}],
    }


BUILT_IN: Final = (
    _definition("echo", "Returns its message, at once.", "message", "string", "What to return."),
    _definition("sleep", "Waits, then says how long.", "seconds", "float", "How long to wait, in seconds."),
    _definition("fail", "Fails with its message.", "message", "string", "The error message to fail with."),
)
"""The result of `echo` and `sleep` is an object with their parameter."""
