"""The services that the example flows order, each with its definition in a YAML file beside it."""
