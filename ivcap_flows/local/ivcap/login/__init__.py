"""Login by device code, and the tokens that it gives."""
