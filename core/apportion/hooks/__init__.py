"""Hook specifications, registries and the plugin manager, which find and check extensions."""
