"""Login by device code, and its tokens."""
