"""The embedded Keycloak realm."""
