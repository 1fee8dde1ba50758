"""What a result was made by: a digest of the definitions that it reaches, from source text."""
