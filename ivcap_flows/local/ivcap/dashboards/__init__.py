"""Dashboards; there are none."""
