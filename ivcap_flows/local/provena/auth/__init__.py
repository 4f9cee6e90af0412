"""The embedded auth-api: person links, groups and access reports."""
