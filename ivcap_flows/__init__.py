"""Prefect 3 pipelines on IVCAP and Provena."""

__version__ = "0.1.0"
