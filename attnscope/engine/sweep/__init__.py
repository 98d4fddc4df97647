"""Many edits of the same prompts at the price of few forwards."""
