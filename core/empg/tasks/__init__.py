"""Problems: where prompts and gold answers come from, and in which order a run meets them."""
