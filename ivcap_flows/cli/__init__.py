"""The command line `ivcap-flows`, one file a command.

Exit status: 0 fine, 1 something is wrong (a check failed, a platform refused), 2 used wrongly.
"""

from ivcap_flows.cli.app import main

__all__ = ["main"]
