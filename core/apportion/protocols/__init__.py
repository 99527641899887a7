"""The words that plugins speak: protocols and the data that they exchange."""
