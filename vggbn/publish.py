"""`python -m vggbn.publish`, the former name of `python -m vggbn publish`."""

from vggbn.former import forward

if __name__ == "__main__":
    forward("vggbn.publish", "publish")
