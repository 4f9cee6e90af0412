"""What the file of a flow imports, with tasks for artifacts, orders and model runs, against what the same flow imports
of Prefect alone; each in a new interpreter.

Tasks are imported when they are named, so `import ivcap_flows.tasks` by itself says nothing.
"""

import sys

from benchmarks.measure import medians, report, rounds, timed

LIMIT = 1.15
PREFECT = "from prefect import flow, task"
OURS = """
from ivcap_flows import flow, task
from ivcap_flows.tasks import download_artifact, place_order, register_model_run, upload_artifact, wait_for_orders
"""


def main() -> None:
    def importing(code: str) -> float:
        return timed([sys.executable, "-c", code])

    importing(OURS)  # writes the byte code
    seconds = medians(rounds({"ivcap_flows": lambda: importing(OURS), "prefect": lambda: importing(PREFECT)}, 15))
    report("imports", seconds["ivcap_flows"] / seconds["prefect"], limit=LIMIT, seconds=seconds)


if __name__ == "__main__":
    main()
