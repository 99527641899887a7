"""Results for users: attributions, evaluations, and their tables and files."""
