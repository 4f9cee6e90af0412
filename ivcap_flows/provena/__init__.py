"""A typed, asynchronous client of Provena (https://github.com/provena/provena), one file an API."""
