from .ivcap import *  # noqa: F403
from .provena import *  # noqa: F403
