"""From model inputs to values: plans, batches and what is read of them."""
