"""The embedded id-service."""
