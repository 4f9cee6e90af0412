"""The Prefect tasks. Each exists twice: `place_order` for synchronous flows, `aplace_order` for asynchronous ones.

`run_orders` is a function that calls several of them in the flow's body.
The stub file `__init__.pyi` lists them. A task's module is imported when the task is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
