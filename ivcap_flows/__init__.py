"""Prefect 3 pipelines on IVCAP and Provena: each effect at most once, provenance recorded automatically.

`flow` and `task` are Prefect's, with their runs recorded; `recorded` records any other function. `annotate` adds to
the record, `once` keeps a value for all attempts of a run, `wait_or_park` waits for orders and jobs without a worker,
and `trace` shows in a notebook where a thing comes from. The tasks are in `ivcap_flows.tasks`, the credentials blocks
in `ivcap_flows.blocks`, the values that tasks return in `ivcap_flows.handles`, and the errors in `ivcap_flows.errors`.
"""

import lazy_loader

# The embedded platforms and their runners import the package without Prefect.
__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)

__all__ = sorted(["__version__", *_names])

__version__ = "0.1.0"
