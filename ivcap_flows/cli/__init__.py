"""The command line `ivcap-flows`, one file a command.

Exit status: 0 fine, 1 something is wrong (a check failed, a platform refused), 2 used wrongly. Prefect takes most of a
second to import, so that only the commands that need it do.
"""

from ivcap_flows.cli.app import main

__all__ = ["main"]
