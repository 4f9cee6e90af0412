"""The embedded registry-api: items, their history, versions, access and locks."""
