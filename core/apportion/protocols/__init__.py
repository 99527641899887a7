"""Protocols that plugins implement, and the data that they exchange."""
