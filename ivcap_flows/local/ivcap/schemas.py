"""Schemas of the aspects that the platform keeps itself, as published listings and clients name them."""

from typing import Final

__all__ = [
    "AI_TOOL",
    "ARTIFACT",
    "IN_COLLECTION",
    "JOB",
    "JOB_INPUT",
    "JOB_RESULT",
    "JOB_STATUS",
    "ORDER_FINISHED",
    "ORDER_PLACED",
    "PRODUCED",
    "PRODUCED_BY",
    "SERVICE",
    "SERVICE_BATCH",
    "SERVICE_LOCAL",
    "SERVICE_REST",
    "USED_BY",
    "USES",
]

AI_TOOL: Final = "urn:sd-core:schema.ai-tool.1"
ARTIFACT: Final = "urn:ivcap:schema:artifact.1"
IN_COLLECTION: Final = "urn:ivcap:schema:artifact-in-collection.1"
JOB: Final = "urn:ivcap:schema:job.2"
JOB_INPUT: Final = "urn:ivcap:schema:job.input.1"
JOB_RESULT: Final = "urn:ivcap:schema:job.result.1"
JOB_STATUS: Final = "urn:ivcap:schema:job.status.1"
ORDER_PLACED: Final = "urn:ivcap:schema:order-placed.1"
ORDER_FINISHED: Final = "urn:ivcap:schema:order-finished.1"
PRODUCED: Final = "urn:ivcap:schema:order-produced-artifact.1"
PRODUCED_BY: Final = "urn:ivcap:schema:artifact-producedBy-order.1"
USED_BY: Final = "urn:ivcap:schema:artifact-usedBy-order.1"
USES: Final = "urn:ivcap:schema:order-uses-artifact.1"
SERVICE: Final = "urn:ivcap:schema.service.2"
"""The description of a service as an aspect; the service SDKs register services with it."""
SERVICE_BATCH: Final = "urn:ivcap:schema.service.batch.1"
SERVICE_REST: Final = "urn:ivcap:schema.service.rest.1"
SERVICE_LOCAL: Final = "urn:ivcap-flows:schema:service.local.1"
"""The controller of a service that the embedded platform can run: `entry` and `path`, or `command` and `cwd`."""
