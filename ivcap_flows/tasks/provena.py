"""The tasks of Provena, which the stub file `provena.pyi` lists. Each is imported when it is first used."""

import lazy_loader

# The stub names modules of the package around this one.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__package__, __file__)
