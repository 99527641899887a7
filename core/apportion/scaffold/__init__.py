"""Writing a new plugin: a distribution that works and whose tests pass."""
