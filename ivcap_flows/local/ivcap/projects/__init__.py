"""Projects, their members and their accounts."""
