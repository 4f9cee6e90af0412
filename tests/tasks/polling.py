"""Waits for orders of which other processes know nothing: `python polling.py <urn> ...`."""

import sys

from ivcap_flows.tasks import wait_for_orders

if __name__ == "__main__":
    wait_for_orders.fn(sys.argv[1:])
