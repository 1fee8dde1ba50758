"""`python -m vggbn.ledger`, the former name of `python -m vggbn claims`."""

from vggbn.former import forward

if __name__ == "__main__":
    forward("vggbn.ledger", "claims")
