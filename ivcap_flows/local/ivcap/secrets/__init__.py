"""Secrets: small texts of an account, encrypted at rest."""
