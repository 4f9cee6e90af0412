"""Artifacts: records, uploads, downloads."""
