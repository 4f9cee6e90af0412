from ivcap_flows.blocks.ivcap_credentials import IvcapCredentials as IvcapCredentials
from ivcap_flows.blocks.provena_credentials import ProvenaCredentials as ProvenaCredentials
from ivcap_flows.blocks.provena_terms import ProvenaTerms as ProvenaTerms
from ivcap_flows.tasks.collection_block import IvcapCollection as IvcapCollection
from ivcap_flows.tasks.service_block import IvcapOrder as IvcapOrder
from ivcap_flows.tasks.service_block import IvcapService as IvcapService

__all__: list[str]
