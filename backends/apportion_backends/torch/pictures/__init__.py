"""Image-text models: pictures are encoded once each, and read by rows of tokens."""
