"""Decoders that others exported: optimum, ONNX Runtime GenAI, or any graph from ``input_ids`` to ``logits``."""
