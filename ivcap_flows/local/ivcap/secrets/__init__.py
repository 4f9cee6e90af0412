"""Secrets: small texts of an account, sealed at rest."""
