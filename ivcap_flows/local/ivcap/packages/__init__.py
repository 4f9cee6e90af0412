"""Packages: the container images that services name."""
