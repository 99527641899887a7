"""Prompts as users write them: which parts are features. Input adapters give these descriptions their meaning."""
