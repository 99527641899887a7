"""Prompts as users write them, with a definition of their features. Input adapters implement these definitions."""
