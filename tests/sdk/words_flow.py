"""A flow that uploads a text, has its words counted by the service that the argument names, and reads the product."""

import sys
from pathlib import Path

from prefect import flow

from ivcap_flows import recorded
from ivcap_flows.tasks import download_artifact, request_job, upload_artifact, wait_for_jobs


@flow(name="words")
@recorded
def words(service: str, source: Path, target: Path):
    text = upload_artifact(source)
    job = request_job(service, {"text": text})
    [done] = wait_for_jobs([job])
    download_artifact(done.products["capitals.txt"], target)


if __name__ == "__main__":
    words(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
