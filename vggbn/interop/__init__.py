"""Doors to other frameworks, which nothing inside needs."""
