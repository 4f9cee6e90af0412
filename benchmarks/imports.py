"""`import ivcap_flows.tasks` against `import prefect`, each in a new interpreter."""

import sys

from benchmarks.measure import medians, report, rounds, timed

LIMIT = 1.2


def main() -> None:
    def importing(module: str) -> float:
        return timed([sys.executable, "-c", f"import {module}"])

    importing("ivcap_flows.tasks")  # writes the byte code
    seconds = medians(
        rounds(
            {
                "ivcap_flows.tasks": lambda: importing("ivcap_flows.tasks"),
                "prefect": lambda: importing("prefect"),
                "prefect.task": lambda: importing("prefect.tasks, prefect.flows"),
            },
            9,
        )
    )
    report("imports", seconds["ivcap_flows.tasks"] / seconds["prefect"], limit=LIMIT, seconds=seconds)


if __name__ == "__main__":
    main()
