"""Moves the files of a dataset with the official Python client of Provena: `provena_files.py DATASET UP DOWN`.

Uploads the folder UP, lists what there is, and downloads everything into DOWN, one file into DOWN/one, and a folder
into DOWN/folder. Prints one JSON line with the paths that it listed. Runs where `provenaclient` is installed and this
project is not; the S3 server is named by S3_URL, since this client's botocore knows no variable of its own for it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import tempfile

import cloudpathlib.s3
from provena_official import connect

# Reading certificates that nobody asks for on this machine takes most of the client's time.
os.environ["SSL_CERT_DIR"] = tempfile.mkdtemp()
cloudpathlib.s3.S3Client = functools.partial(cloudpathlib.s3.S3Client, endpoint_url=os.environ["S3_URL"])


async def main(dataset: str, up: str, down: str) -> None:
    files = connect(dict(os.environ)).datastore.io
    await files.upload_all_files(up, dataset)
    listed = await files.list_all_files(dataset)
    await files.download_all_files(down, dataset)
    await files.download_specific_file(dataset, "theirs.csv", f"{down}-one")
    await files.download_specific_file(dataset, "ours/", f"{down}-folder")
    print(json.dumps({"listed": [str(path) for path in listed if path.is_file()]}))


asyncio.run(main(*sys.argv[1:]))
