"""A trained run on disk, found again by its recipe and seed."""
