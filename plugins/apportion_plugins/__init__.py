"""The inputs, samplers, methods, targets and visualizers that come with apportion, all plugins."""
