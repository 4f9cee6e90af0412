"""A flow that uploads a text, lets the services that the arguments name count its words, and reads the products."""

import sys
from pathlib import Path

from prefect import flow

from ivcap_flows import recorded
from ivcap_flows.tasks import download_artifact, request_job, upload_artifact, wait_for_jobs


@flow(name="words")
@recorded
def words(source: Path, services: list[str]):
    text = upload_artifact(source)
    jobs = [request_job(service, {"text": text}) for service in services]
    for number, done in enumerate(wait_for_jobs(jobs, events=True)):
        download_artifact(done.products["capitals.txt"], source.with_name(f"{number}.txt"))


if __name__ == "__main__":
    words(Path(sys.argv[1]), sys.argv[2:])
