"""HTTP for all clients: sessions that repeat requests safely, tokens, paging, resumable upload, verified download.

Only this package imports httpx. Import from its modules, for instance `ivcap_flows.http.session`.
"""
