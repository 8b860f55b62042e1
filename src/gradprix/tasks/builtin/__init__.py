"""Built-in tasks, one module each, and the code they share."""
