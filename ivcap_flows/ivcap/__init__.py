"""A typed, asynchronous client of IVCAP: artifacts, services, orders, jobs and aspects.

Paths, fields and statuses are those of the IVCAP OpenAPI description 0.48; where deployments differ from it, the
official clients' practice is followed.
"""
