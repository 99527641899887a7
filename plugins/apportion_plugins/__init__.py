"""The built-in plugins: inputs, segmenters, fills, samplers, methods, targets, visualizers, metrics and observers."""
