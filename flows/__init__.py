"""The example flows, their data and the services that they order."""
