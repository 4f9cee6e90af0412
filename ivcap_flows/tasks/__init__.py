"""The Prefect tasks. Each verb is there twice: `place_order` for synchronous flows, `aplace_order` for asynchronous.

The stub beside this file lists them. Each is imported when it is first used, with what it needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
