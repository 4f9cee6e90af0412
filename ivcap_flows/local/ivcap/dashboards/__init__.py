"""Dashboards, of which there are none."""
