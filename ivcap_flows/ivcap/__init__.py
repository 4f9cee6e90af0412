"""A typed, asynchronous client of IVCAP: artifacts, services, orders, jobs and aspects.

Paths, fields and statuses are those of the IVCAP OpenAPI description 0.48. Where deployments differ from it, this
client does what the official clients do.
"""
