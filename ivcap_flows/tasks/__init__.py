"""The Prefect tasks. Each exists twice: `place_order` for synchronous flows, `aplace_order` for asynchronous ones.

`run_orders` and its like are functions that call several of them in the flow's body. Here are those that flows use,
as the stub file lists them; `ivcap_flows.tasks.ivcap` and `ivcap_flows.tasks.provena` have all of a platform. A task's
module is imported when the task is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
