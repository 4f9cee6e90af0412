"""Run by the Python that has roc-validator: a crate's path and profile in each line of the input, its faults in each
line of the output. `python validating.py CACHE [FOLDER]`; with a folder of standards nothing is fetched."""

import io
import json
import logging
import sys
from pathlib import Path

from requests import Response
from requests.adapters import BaseAdapter
from requests_cache import CachedSession
from rocrate_validator import services
from rocrate_validator.models import ValidationSettings
from urllib3 import HTTPResponse

CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": "ro-crate-1.1-context.jsonld",
    "https://w3id.org/ro/terms/workflow-run/context": "workflow-run-context.jsonld",
}


class FromFolder(BaseAdapter):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def send(self, request, **_):
        body = (self.folder / CONTEXTS[request.url]).read_bytes()
        response = Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.headers["Content-Type"] = "application/ld+json"
        response.raw = HTTPResponse(io.BytesIO(body), headers=response.headers, status=200, preload_content=False)
        return response

    def close(self) -> None:
        pass


def fill(cache: str, folder: str | None) -> None:
    """Have the contexts in the validator's cache, from a folder or from their own addresses."""
    session = CachedSession(cache_name=cache, expire_after=-1, allowable_methods=["GET", "HEAD"])
    if folder is not None:
        session.mount("https://w3id.org/", FromFolder(Path(folder)))
    for url in CONTEXTS:
        session.get(url, timeout=20).raise_for_status()


def validate(cache: str, crate: str, profile: str) -> dict:
    settings = ValidationSettings(
        rocrate_uri=crate,
        profile_identifier=profile,
        requirement_severity="RECOMMENDED",
        cache_path=Path(cache),
        cache_max_age=-1,
        offline=True,
    )
    result = services.validate(settings)
    issues = [
        {
            "severity": issue.severity.name,
            "check": issue.check.identifier,
            "message": issue.message,
            "entity": str(issue.violatingEntity),
            "value": str(issue.violatingPropertyValue),
        }
        for issue in result.get_issues()
    ]
    return {"issues": issues, "checks": len(result.executed_checks)}


def main(cache: str, folder: str | None = None) -> None:
    logging.disable(logging.CRITICAL)
    said = sys.stdout
    sys.stdout = sys.stderr
    try:
        fill(cache, folder)
    except OSError as error:
        print(json.dumps({"unreachable": str(error)}), file=said, flush=True)
        return
    print(json.dumps({}), file=said, flush=True)
    for line in sys.stdin:
        crate, profile = json.loads(line)
        print(json.dumps(validate(cache, crate, profile)), file=said, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
