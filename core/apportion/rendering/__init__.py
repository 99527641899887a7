"""From coalitions to model inputs: token ids of prompts that are nearly alike."""
