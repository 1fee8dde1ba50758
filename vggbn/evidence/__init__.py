"""The queue of evidence: which runs the published claims still need, and in which order."""
