"""The embedded search-api."""
