"""A recipe becomes weights."""
