"""The command line `ivcap-flows`: one file per command.

Exit status: 0 success, 1 something is wrong (a check failed, a platform refused), 2 wrong usage. Importing Prefect
takes most of a second, so only the commands that need it import it.
"""

from ivcap_flows.cli.app import main

__all__ = ["main"]
