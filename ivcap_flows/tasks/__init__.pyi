from .fetch import afetch_url as afetch_url
from .fetch import fetch_url as fetch_url
from .ivcap import *  # noqa: F403
from .provena import *  # noqa: F403
