"""What the file of a flow imports, with tasks for artifacts, orders and model runs, against what the same flow imports
of Prefect alone; each in a new interpreter.

Counted is processor time, which is all that an import takes: the time on the wall differs by half from one import of
Prefect to the next. Tasks are imported when they are named, so `import ivcap_flows.tasks` by itself says nothing.

Beside Prefect's 1,090 modules are 170 of the package, 0.1 to 0.2 s. To import fewer would only move that time into the
first call of a task.
"""

import os
import subprocess
import sys
import tempfile

from benchmarks.measure import medians, report, rounds

LIMIT = 1.25
PREFECT = "from prefect import flow, task"
OURS = """
from ivcap_flows import flow, task
from ivcap_flows.tasks import download_artifact, place_order, register_model_run, upload_artifact, wait_for_orders
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as byte_code:
        # Both have their byte code, as where both are installed, whatever the environment says of writing it.
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ["PYTHONPYCACHEPREFIX"] = byte_code

        def importing(code: str) -> float:
            before = os.times()
            subprocess.run([sys.executable, "-c", code], check=True, env=environ)
            after = os.times()
            return after.children_user + after.children_system - before.children_user - before.children_system

        importing(OURS)  # writes the byte code, Prefect's too
        seconds = medians(rounds({"ivcap_flows": lambda: importing(OURS), "prefect": lambda: importing(PREFECT)}, 15))
    report("imports", seconds["ivcap_flows"] / seconds["prefect"], limit=LIMIT, seconds=seconds)


if __name__ == "__main__":
    main()
