"""The embedded data-store-api."""
