"""Orders: placed, watched, their products and logs."""
