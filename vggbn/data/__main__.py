"""`python -m vggbn.data prepare`, the former name of `python -m vggbn prepare`."""

from vggbn.commands.prepare import main

main()
