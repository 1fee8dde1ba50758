"""Where the published results lie: in a checkout of the repository, not in an installed package."""

from pathlib import Path

from vggbn.errors import UserError

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results"  # the one root of committed results


def in_checkout() -> bool:
    """Whether this code lies in a checkout, beside its results and documents."""
    return (ROOT / "pyproject.toml").is_file() and PUBLISHED.is_dir()


def require_checkout(command: str) -> None:
    """UserError where the code is an installed package."""
    if not in_checkout():
        raise UserError(
            f"{command} needs the published results, which an installed package lacks: run it in "
            "a checkout of the repository."
        )
