"""`ivcap-flows sync` in processes of its own, forked from one that has imported everything.

Each line of standard input is a JSON object with `arguments`, `environment` and `log`. The answer is the pid, and then,
when the process has ended, its status.
"""

import json
import os
import sys

import ivcap_flows.blocks.resolve
import ivcap_flows.sinks.provena  # noqa: F401 - imported for the children
from ivcap_flows.cli import main


def child(asked: dict) -> None:
    os.environ.update(asked["environment"])
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    main(["sync", *asked["arguments"]])


if __name__ == "__main__":
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
            os._exit(70)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
