"""Registering model runs (prov-api). Registration only dispatches a job; `jobs` tells how it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from ivcap_flows.errors import InputError
from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.provena.wire import Wire

__all__ = ["MAX_BATCH_BYTES", "ProvApi", "batches"]

MAX_BATCH_BYTES: Final = 150_000
"""Encoded size of the records of one batch. The whole batch is one queue message of less than 262,144 bytes."""


class _Dispatched(Wire):
    session_id: str


class ProvApi(Api):
    """Registration is not idempotent: the same record sent twice makes two model runs."""

    async def register(self, record: ModelRunRecord) -> str:
        """Register one run and return the session id of its job.

        Raises InputError before sending, BadRequestError for what the server's own look-ups refuse (unknown ids,
        missing inputs, resources or annotations), NotAuthorizedError for an item that the caller may not read.
        """
        return await self._dispatch("/model_run/register", record.body())

    async def register_batch(self, records: Sequence[ModelRunRecord]) -> str:
        """Register several runs in one job and return its session id.

        The server checks only the shape now; what else is wrong shows as failed child jobs. Raises InputError for an
        empty batch and for one above `MAX_BATCH_BYTES`; `batches` cuts a longer list.
        """
        if not records:
            raise InputError("A batch of model runs is empty; give at least one record.")
        bodies = [record.body() for record in records]
        size = sum(map(_encoded_size, bodies))
        if size > MAX_BATCH_BYTES and len(bodies) > 1:
            raise InputError(
                f"A batch of {len(bodies)} model runs has {size:,} bytes, and Provena takes {MAX_BATCH_BYTES:,}; "
                "send it in several batches.",
                size=size,
                limit=MAX_BATCH_BYTES,
            )
        return await self._dispatch("/model_run/register_batch", {"records": bodies})

    async def _dispatch(self, path: str, body: dict[str, Any]) -> str:
        reply = await self.call("POST", path, repeat="keyed", json=body)
        return parse(_Dispatched, reply, "answer to a registration").session_id


def batches(records: Sequence[ModelRunRecord]) -> list[list[ModelRunRecord]]:
    """The records in their order, cut so that each part may be sent as one batch."""
    parts: list[list[ModelRunRecord]] = []
    room = 0
    for record in records:
        size = _encoded_size(record.body())
        if not parts or size > room:
            parts.append([])
            room = MAX_BATCH_BYTES
        parts[-1].append(record)
        room -= size
    return parts


def _encoded_size(body: dict[str, Any]) -> int:
    return len(json.dumps(body).encode())
