"""Older names of services and aspects."""
