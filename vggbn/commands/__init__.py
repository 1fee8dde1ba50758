"""All that reads a command line."""
