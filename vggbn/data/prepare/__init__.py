"""Sets stored once, as ArrayRecord files, for training to read."""
