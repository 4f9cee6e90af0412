"""A typed, asynchronous client of Provena (https://github.com/provena/provena), with one file for each API."""
