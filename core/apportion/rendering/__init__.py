"""Rendering of coalitions to model inputs, and tokenisation of many similar prompts."""
