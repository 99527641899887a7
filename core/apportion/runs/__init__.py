"""One call, or many: from arguments to a result."""
