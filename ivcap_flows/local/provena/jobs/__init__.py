"""The embedded job-api and the workers behind it."""
