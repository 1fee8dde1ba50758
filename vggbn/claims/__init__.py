"""Plain numbers: intervals, verdicts, result lines. No jax."""
