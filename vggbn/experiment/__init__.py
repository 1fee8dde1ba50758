"""What an experiment is, and what its results say."""
