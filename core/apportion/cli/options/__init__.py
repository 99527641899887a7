"""The options that commands share: frozen dataclasses, one for each group, each field an option with its help."""
