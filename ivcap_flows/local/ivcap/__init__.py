"""The embedded IVCAP: its API, with one folder for each noun."""
