"""`python -m vggbn.ledger`, the former name of `python -m vggbn claims`."""

from vggbn.commands.ledger import main

if __name__ == "__main__":
    main()
