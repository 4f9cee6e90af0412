from .blocks import IvcapCredentials as IvcapCredentials
from .blocks import ProvenaCredentials as ProvenaCredentials
from .capture import annotate as annotate
from .capture import aonce as aonce
from .capture import once as once
from .capture import recorded as recorded
from .capture.drop_ins import flow as flow
from .capture.drop_ins import task as task
from .notebook import trace as trace
from .tasks.parking import a_wait_or_park as a_wait_or_park
from .tasks.parking import wait_or_park as wait_or_park

__version__: str
