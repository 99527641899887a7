"""What users hold: attributions, evaluations, tables and files of them."""
