"""Built-in problems, one module each, and what they share."""
