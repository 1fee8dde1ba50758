"""What lies in a folder of images, before any is decoded."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vggbn.data.pixels.decode import Damaged
from vggbn.data.splits import PARTS
from vggbn.errors import UserError

_IGNORED = {"thumbs.db", "desktop.ini"}  # and every name that starts with a dot


@dataclass(frozen=True)
class Listing:
    """What lies in an image folder, before anything is decoded.

    classes: sorted names. parts: for each part (train, validation, test: those given) the
    (file, label) pairs, sorted by class and file name. empty: class folders that were left out.
    lost: what lies among the images and is no file, left out too.
    """

    root: Path
    classes: tuple[str, ...]
    parts: Mapping[str, tuple[tuple[Path, int], ...]]
    empty: tuple[Path, ...] = ()
    lost: tuple[Path, ...] = ()

    @property
    def files(self) -> list[Path]:
        return [file for pairs in self.parts.values() for file, _ in pairs]


def list_folder(path: str, damaged: str = "refuse") -> Listing:
    """List an image folder. Raises UserError for a layout that cannot be read.

    damaged: "refuse": a class folder without images is one, and so is what is no file, as a link
    that leads nowhere; "skip": it is named on stderr and left out, and so is a class that has no
    images in any part.
    """
    if not path:
        raise UserError("The name of the folder of images has no path: write folder:PATH.")
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"{root} does not exist: give the path of a folder of images.")
    if not root.is_dir():
        raise UserError(f"{root} is a file: give the folder that holds the class folders.")
    folders = _part_folders(root)
    entries = {part: _class_entries(folder) for part, folder in folders.items()}
    places = dict.fromkeys((root, *folders.values()))
    beside = [path for folder in places for path in _visible(folder) if not path.exists()]
    images = [path for found in entries.values() for paths in found.values() for path in paths]
    lost = set(_no_files([*beside, *images], damaged))
    files = {
        part: {name: [path for path in paths if path not in lost] for name, paths in found.items()}
        for part, found in entries.items()
    }
    named = [(part, name, images) for part in files for name, images in files[part].items()]
    empty = tuple(folders[part] / name for part, name, images in named if not images)
    for folder in empty:
        flaw = Damaged(f"The class folder {folder} is empty", "add images or remove it")
        flaw.refuse_or_tell(damaged)
    classes = tuple(sorted({name for _, name, images in named if images}))
    if len(classes) < 2:
        raise UserError(
            f"{root} holds images of {len(classes)} classes, and two are needed: "
            "put the images of each class in a folder of its own, CLASS/IMAGE."
        )
    label = {name: number for number, name in enumerate(classes)}
    parts = {
        part: tuple((file, label[name]) for name in sorted(found) for file in found[name])
        for part, found in files.items()
    }
    return Listing(root, classes, parts, empty, tuple(sorted(lost)))


def _part_folders(root: Path) -> dict[str, Path]:
    """The folder of each part; a folder without train/ is one part, 'train'."""
    folders = _subfolders(root)
    train = root / "train"
    if train not in folders or not _subfolders(train):
        lost = [f.name for f in folders if f.name in PARTS[1:] and _subfolders(f)]
        if lost:
            raise UserError(f"{root} has {lost[0]}/ but no train/CLASS/IMAGE: add train/.")
        return {"train": root}
    unknown = [f.name for f in folders if f.name not in PARTS]
    if unknown:
        raise UserError(
            f"{root} has {unknown[0]}/ beside train/: "
            f"the folders there must be called {', '.join(PARTS)}; rename or move it."
        )
    return {part: root / part for part in PARTS if root / part in folders}


def _class_entries(folder: Path) -> dict[str, list[Path]]:
    classes = {path.name: _entries(path) for path in _subfolders(folder)}
    if not classes:
        raise UserError(f"{folder} holds no class folders: put images in {folder}/CLASS/.")
    return classes


def _entries(folder: Path) -> list[Path]:
    """What is visible in a class folder, which has no folders: a file that is no image is refused
    when it is decoded."""
    entries = _visible(folder)
    nested = [path for path in entries if path.is_dir()]
    if nested:
        raise UserError(
            f"{nested[0]} is a folder inside the class {folder.name}: "
            f"move its images straight into {folder}."
        )
    return entries


def _no_files(paths: Iterable[Path], damaged: str) -> Iterator[Path]:
    """What cannot be opened as a file, or only by one who waits for ever, as a named pipe."""
    for path in (path for path in paths if not path.is_file()):
        what = "no file" if path.exists() else "a link that leads nowhere"
        Damaged(f"{path} is {what}", "replace or remove it").refuse_or_tell(damaged)
        yield path


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _IGNORED
    )
