"""Orders: placed, followed, their products and logs."""
