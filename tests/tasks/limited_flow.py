"""A flow whose orders and jobs are submitted together: `python limited_flow.py <word> <count>`."""

import sys

from ivcap_flows import flow
from ivcap_flows.tasks import place_order, request_job


@flow
def limited(word: str, count: int) -> None:
    messages = [{"message": f"{word} {number}"} for number in range(count)]
    submitted = [*place_order.map("echo", messages), *request_job.map("echo", messages)]
    for each in submitted:
        each.result()


if __name__ == "__main__":
    limited(sys.argv[1], int(sys.argv[2]))
