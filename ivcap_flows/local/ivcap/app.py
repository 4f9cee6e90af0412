"""All nouns together as one ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ivcap_flows import __version__
from ivcap_flows.local.ivcap import openapi
from ivcap_flows.local.ivcap.artifacts.routes import OPERATIONS as ARTIFACTS
from ivcap_flows.local.ivcap.aspects.routes import OPERATIONS as ASPECTS
from ivcap_flows.local.ivcap.jobs.routes import OPERATIONS as JOBS
from ivcap_flows.local.ivcap.login import routes as login
from ivcap_flows.local.ivcap.orders.routes import OPERATIONS as ORDERS
from ivcap_flows.local.ivcap.packages.routes import OPERATIONS as PACKAGES
from ivcap_flows.local.ivcap.platform import Platform
from ivcap_flows.local.ivcap.queues.routes import OPERATIONS as QUEUES
from ivcap_flows.local.ivcap.replies import reply
from ivcap_flows.local.ivcap.routing import Call, Operation, on_http_error, on_problem, route
from ivcap_flows.local.ivcap.search.routes import OPERATIONS as SEARCH
from ivcap_flows.local.ivcap.secrets.routes import OPERATIONS as SECRETS
from ivcap_flows.local.ivcap.services.routes import OPERATIONS as SERVICES
from ivcap_flows.local.ivcap.shapes import Body
from ivcap_flows.local.ivcap.uncalled import OPERATIONS as UNCALLED

__all__ = ["create_app"]


def _description(call: Call) -> Response:
    return reply(openapi.document(OPERATIONS, call.base, __version__))


OPERATIONS = (
    *ARTIFACTS,
    *SERVICES,
    *JOBS,
    *ORDERS,
    *ASPECTS,
    *SECRETS,
    *QUEUES,
    *PACKAGES,
    *SEARCH,
    *UNCALLED,
    Operation(
        "GET", "/1/openapi/openapi3.json", _description, "This document", public=True, gives=Body({"type": "object"})
    ),
    login.AUTHINFO,
)


def create_app(platform: Platform) -> Starlette:
    return Starlette(
        routes=[route(platform, operation) for operation in (*OPERATIONS, *login.ROUTES)],
        exception_handlers={HTTPException: on_http_error, Exception: on_problem},
    )
