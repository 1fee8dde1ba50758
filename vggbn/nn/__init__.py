"""Arrays: norms, layers, and the forms of them that a CPU computes fast."""
