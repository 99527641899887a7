"""The built-in plugins: inputs, samplers, methods, target functions, visualizers, metrics and observers."""
