"""One file = one figure, table or claim group of a paper: `python -m experiments.<name>`."""
