"""Turns a ``transformers`` model into a packed ONNX graph; the only part of the backend that needs PyTorch modules."""
