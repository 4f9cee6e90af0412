"""Services: records, parameters, request models."""
