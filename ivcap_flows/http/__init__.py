"""HTTP for all clients: sessions with declared repetition, tokens, paging, resumable upload and verified download.

The only room that imports httpx. Import from its modules, for instance `ivcap_flows.http.session`.
"""
