"""Many prompts on several processes or machines, by engines that exist for that."""
