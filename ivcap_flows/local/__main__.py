"""`python -m ivcap_flows.local serve [--host H] [--port N] [--dir D] [--env-file F] [--idle SECONDS] [--seed N]
[--s3-endpoint URL] [--like production] [--speed N] [--quiet]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ivcap_flows.errors import IvcapFlowsError, NewerSchemaError
from ivcap_flows.local import serve

_OPTIONS = {"--host", "--port", "--dir", "--env-file", "--idle", "--seed", "--s3-endpoint", "--like", "--speed"}


def main(arguments: list[str]) -> int:
    """Return the exit status: 0 success, 1 cannot serve, 2 wrong usage, 3 made by a newer version (JSON on stdout)."""
    if arguments[:1] != ["serve"]:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    given: dict[str, str] = {}
    rest = iter(arguments[1:])
    for option in rest:
        if option == "--quiet":
            given[option] = ""
            continue
        value = next(rest, None)
        if option not in _OPTIONS or value is None:
            sys.stderr.write(f"{option} is not an option, or has no value.\n{__doc__}\n")
            return 2
        given[option] = value
    try:
        serve(
            given.get("--host", "127.0.0.1"),
            int(given.get("--port", "0")),
            Path(given.get("--dir", "ivcap-artifacts")),
            Path(given["--env-file"]) if "--env-file" in given else None,
            idle=float(given["--idle"]) if "--idle" in given else None,
            announce="--quiet" not in given,
            seed=int(given["--seed"]) if "--seed" in given else None,
            s3=given.get("--s3-endpoint"),
            like=given.get("--like"),
            speed=float(given.get("--speed", "1")),
        )
    except NewerSchemaError as error:
        sys.stdout.write(json.dumps({"message": error.message, **error.data}))
        return 3
    except IvcapFlowsError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
