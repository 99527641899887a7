"""The game that methods query, its token view, and code that runs and stops methods."""
