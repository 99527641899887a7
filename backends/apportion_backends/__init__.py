"""The backends that come with apportion, one private package each."""
