"""What `ivcap-flows doctor` checks: one function for each thing that a flow needs, which returns its findings.

A check raises an IvcapFlowsError if nothing more can be found out.
"""

__all__ = ["Wrong"]


class Wrong(str):
    """A finding that is not in order. Other findings are for information."""
