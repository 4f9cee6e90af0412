"""The embedded IVCAP: its wire contract, one folder a noun."""
