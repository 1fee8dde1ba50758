"""`python -m vggbn.data`: see `prepare`."""

from vggbn.data.prepare import main

main()
