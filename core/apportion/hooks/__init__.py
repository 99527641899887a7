"""Finding and checking extensions: hook specifications, registries and the plugin manager."""
