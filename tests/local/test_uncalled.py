"""Operations of the embedded IVCAP that no client calls."""

import re

import pytest

from ivcap_flows.local.ivcap.app import OPERATIONS
from ivcap_flows.local.ivcap.uncalled import OPERATIONS as UNCALLED

OLDER = [operation for operation in UNCALLED if operation.path.startswith(("/1/services", "/1/metadata"))]
OF_PROJECTS = [operation for operation in UNCALLED if operation.path.startswith("/1/project")]
SERVED = {f"{operation.method} {operation.path}" for operation in OPERATIONS if operation not in UNCALLED}


@pytest.mark.parametrize("older", OLDER, ids=lambda older: f"{older.method} {older.path}")
def test_an_older_form_is_refused_by_the_name_of_the_newer(first, older):
    """The refusal is IVCAP's for what it does not implement, and names an operation that is served."""
    refused = first.call(older.method, older.path.format(id="any"), 501)
    assert refused.headers["goa-error"] == "not-implemented"
    [newer] = re.findall(r"Use (.+)\.$", refused.json()["message"])
    assert newer in SERVED


@pytest.mark.parametrize("operation", OF_PROJECTS[1:], ids=lambda operation: f"{operation.method} {operation.path}")
def test_there_is_no_project_to_work_on(first, operation):
    """The refusal says what to count on instead."""
    refused = first.call(operation.method, operation.path.format(id="any", user="any"), 501)
    assert refused.json()["message"].endswith("What you make belongs to your account.")


def test_there_are_no_dashboards_and_projects(first):
    """Their lists are empty, each in its own form."""
    assert first.get("/1/dashboards") == {"items": []}
    assert {"projects": []}.items() <= first.get("/1/project").items()
