"""Damaged data: refused by name, or with damaged="skip" passed over, told on stderr and counted."""

import io
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggbn.data import load
from vggbn.data.pixels.decode import Damaged
from vggbn.data.prepare.archive import whole
from vggbn.data.prepare.sets import prepare_folder
from vggbn.data.prepare.shards import Collection, Example, write_set
from vggbn.data.readers import tfds as tfds_source
from vggbn.data.stream import training_batches
from vggbn.errors import UserError

# TFDS and what it imports use names that Python will drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
CHOICE = r"or go on without it by --set damaged=skip\.$"
SIDE = 12
EACH = 60  # images of each of two classes in train, two shards of them
FILE = "tiny-train.array_record-00001-of-00004"


def options(**changes) -> dict:
    base = {"image_size": SIDE, "fit": "resize", "split": "fixed", "seed": 0, "data_dir": None}
    return base | changes


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(x).save(path)
    return path


def make_folder(root: Path, counts: dict[str, int]) -> Path:
    """counts: 'train/a' or 'a' -> number of different images."""
    for number, (folder, count) in enumerate(sorted(counts.items())):
        (root / folder).mkdir(parents=True)
        for row in range(count):
            save(root / folder / f"{row}.png", 100 * number + row)
    return root


def classes_of(split) -> list[int]:
    return np.bincount(split.labels_N).tolist()


# --- image folders -------------------------------------------------------------------------------


def test_the_refusal_of_a_file_names_it_and_the_choice(tmp_path):
    root = make_folder(tmp_path, {"a": 12, "b": 12})
    (root / "b" / "3.png").write_text("no image")
    with pytest.raises(UserError, match=r"b.3\.png cannot be read .*: replace or .*" + CHOICE):
        load(f"folder:{root}", **options())


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize(
    ("make", "what"),
    [(dangling, "a link that leads nowhere"), (os.mkfifo, "no file")],
)
def test_what_is_no_file_is_refused_or_skipped(tmp_path, make, what, capfd):
    root = make_folder(tmp_path / "images", {"a": 12, "b": 12})
    before = load(f"folder:{root}", **options())
    make(root / "b" / "5x.png")
    with pytest.raises(UserError, match=rf"b.5x\.png is {what}: replace or remove it.*{CHOICE}"):
        load(f"folder:{root}", **options())
    found = load(f"folder:{root}", **options(damaged="skip"))
    assert found.digest == before.digest
    assert found.note == before.note + ", 1 damaged files skipped"
    assert capfd.readouterr().err.count("skipped: ") == 1
    prepared = prepare_folder(str(root), "photos", str(tmp_path / "out"), "skip")
    assert "5x" not in str(sorted(prepared.iterdir()))
    assert len(load("photos", **options(data_dir=str(tmp_path / "out"), damaged="skip")).train)


@pytest.mark.parametrize("what", [dangling, os.mkfifo])
def test_a_class_of_nothing_but_what_is_no_file_is_empty(tmp_path, what):
    root = make_folder(tmp_path, {"a": 12, "b": 12, "c": 0})
    what(root / "c" / "x.png")
    found = load(f"folder:{root}", **options(damaged="skip"))
    assert found.classes == ("a", "b")


def test_a_link_to_a_class_that_leads_nowhere_is_refused_or_told(tmp_path):
    root = make_folder(tmp_path, {"train/a": 12, "train/b": 12})
    dangling(root / "train" / "c")
    with pytest.raises(UserError, match=r"train.c is a link that leads nowhere"):
        load(f"folder:{root}", **options())
    assert "1 damaged files" in load(f"folder:{root}", **options(damaged="skip")).note


def test_a_link_to_an_image_is_an_image(tmp_path):
    root = make_folder(tmp_path / "images", {"a": 12, "b": 12})
    target = (root / "a" / "0.png").rename(tmp_path / "elsewhere.png")
    (root / "a" / "0.png").symlink_to(target)
    assert "24 images" in load(f"folder:{root}", **options()).note


def test_an_image_that_does_not_fit_is_not_damaged(tmp_path):
    root = make_folder(tmp_path, {"a": 12, "b": 12})
    with pytest.raises(UserError, match="larger than image_size"):
        load(f"folder:{root}", **options(image_size=SIDE - 2, fit="pad", damaged="skip"))


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_an_empty_class_is_refused_or_left_out(tmp_path, prefix, capfd):
    counts = {f"{prefix}a": 20, f"{prefix}b": 0, f"{prefix}c": 20}
    root = make_folder(tmp_path, counts)
    with pytest.raises(UserError, match=r"class folder .*b is empty: add images .*" + CHOICE):
        load(f"folder:{root}", **options())
    found = load(f"folder:{root}", **options(damaged="skip"))
    assert found.classes == ("a", "c")
    assert classes_of(found.train) == [14, 14]
    assert "1 empty class folders skipped" in found.note
    told = capfd.readouterr().err
    assert told.count("skipped: ") == 1 and str(root / prefix / "b") in told


def test_an_empty_folder_of_a_class_that_has_test_images_is_a_class_without_training(tmp_path):
    root = make_folder(tmp_path, {"train/a": 9, "train/b": 9, "train/c": 0, "test/a": 2,
                                  "test/b": 2, "test/c": 2})  # fmt: skip
    with pytest.raises(UserError, match=r"class folder .*c is empty"):
        load(f"folder:{root}", **options())
    found = load(f"folder:{root}", **options(damaged="skip"))
    assert found.classes == ("a", "b", "c")
    assert found.note.endswith("1 empty class folders skipped, no image of class c in train")
    assert classes_of(found.test) == [2, 2, 2]
    (root / "train" / "c").rmdir()
    with pytest.raises(UserError, match=r"train of .* no image of class c: add some to train/"):
        load(f"folder:{root}", **options())


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_class_missing_in_a_part_is_refused_or_told(tmp_path, part, capfd):
    counts = {
        f"{p}/{c}": n for p, n in (("train", 9), ("validation", 2), ("test", 2)) for c in "ab"
    }
    del counts[f"{part}/b"]
    root = make_folder(tmp_path, counts)
    with pytest.raises(UserError, match=rf"{part} of .* no image of class b: add some .*{CHOICE}"):
        load(f"folder:{root}", **options())
    found = load(f"folder:{root}", **options(damaged="skip"))
    assert found.classes == ("a", "b")
    assert classes_of(getattr(found, part)) == [2]
    assert f"no image of class b in {part}" in found.note
    assert capfd.readouterr().err.count("skipped: ") == 1


def test_a_part_drawn_without_a_class_is_refused_or_told(tmp_path):
    root = make_folder(tmp_path, {"a": 30, "b": 4})
    fold = options(split="folds", seed=1)
    match = "The validation part drawn from .* class b: give each class ten images or more, or go"
    with pytest.raises(UserError, match=match):
        load(f"folder:{root}", **fold)
    found = load(f"folder:{root}", **fold, damaged="skip")
    assert len(classes_of(found.validation)) == 1 and len(classes_of(found.test)) == 2
    assert found.note.endswith("34 images, no image of class b in validation")


# --- prepared sets -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """'tiny': train of 4 shards with 30 images each, and one test shard of 4 images."""
    root = tmp_path_factory.mktemp("prepared")
    files = {
        (part, label, row): save(root / f"{part}-{label}-{row}.png", 1000 * label + offset + row)
        for part, offset, each in (("train", 0, EACH), ("test", 500, 2))
        for label in (0, 1)
        for row in range(each)
    }
    parts = {
        part: [Example(whole(path), key[1]) for key, path in files.items() if key[0] == part]
        for part in ("train", "test")
    }
    size = sum(example.member.size for example in parts["train"])
    tiny = Collection("tiny", "1.0.0", ("a", "b"), parts, "")
    write_set(tiny, str(root / "out"), shard_bytes=-(-size // 4))
    return root / "out"


@pytest.fixture
def tiny(prepared, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(prepared, tmp_path / "out")


def folder_of(root: Path) -> Path:
    return root / "tiny" / "1.0.0"


def load_tiny(root: Path, **changes):
    return load("tiny", **options(data_dir=str(root), **changes))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_the_index(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-(2**16) :] = bytes(255 - byte for byte in raw[-(2**16) :])
    file.write_bytes(raw)


SHARD_DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut in half": cut,
    "deleted": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("no shard" * 20_000),
    "index flipped": flip_the_index,
}


@pytest.mark.parametrize("damage", SHARD_DAMAGE)
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_damaged_shard_is_named_or_its_records_are_counted(tiny, damage, number, capfd):
    file = folder_of(tiny) / f"tiny-train.array_record-0000{number}-of-00004"
    before = load_tiny(tiny)
    SHARD_DAMAGE[damage](file)
    match = rf"{file.name} is missing or damaged, and 30 of its 30 records are lost: prep.*{CHOICE}"
    with pytest.raises(UserError, match=match):
        load_tiny(tiny)
    capfd.readouterr()
    found = load_tiny(tiny, damaged="skip")
    assert len(found.train) + len(found.validation) == 90
    assert found.note == before.note + ", 30 damaged images skipped"
    told = capfd.readouterr().err
    assert told.count("skipped: ") == 1 and str(file) in told
    np.testing.assert_array_equal(found.test.images_NHWC, before.test.images_NHWC)
    every = {x.tobytes() for s in (before.train, before.validation) for x in s.images_NHWC}
    kept = {x.tobytes() for s in (found.train, found.validation) for x in s.images_NHWC}
    assert len(every - kept) == 30 and kept <= every


def flip_bits_of_a_record(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[raw.index(b"\x89PNG", len(raw) // 8) + 100] ^= 255
    file.write_bytes(raw)


def test_flipped_bits_cost_one_record(tiny, capfd):
    flip_bits_of_a_record(folder_of(tiny) / FILE)
    with pytest.raises(
        UserError, match=rf"record \d+ of .*{FILE} cannot be read .*hash .*{CHOICE}"
    ):
        load_tiny(tiny)
    capfd.readouterr()
    found = load_tiny(tiny, damaged="skip")
    assert len(found.train) + len(found.validation) == 119
    assert ", 1 damaged images skipped" in found.note
    assert capfd.readouterr().err.count("skipped: record ") == 1


def rewrite(file: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    reader = ArrayRecordReader(str(file))
    records = change(reader.read_all())
    reader.close()
    writer = ArrayRecordWriter(str(file), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def test_a_shard_with_fewer_records_than_its_set_says(tiny):
    rewrite(folder_of(tiny) / FILE, lambda records: records[:20])
    with pytest.raises(UserError, match=f"{FILE} is missing or damaged, and 10 of its 30 records"):
        load_tiny(tiny)
    found = load_tiny(tiny, damaged="skip")
    assert len(found.train) + len(found.validation) == 110
    assert ", 10 damaged images skipped" in found.note


def spoil_image_7(file: Path) -> None:
    rewrite(file, lambda records: [
        *records[:7], records[7].replace(b"IDAT", b"XDAT"), *records[8:]
    ])  # fmt: skip


@pytest.mark.parametrize("fit", ["resize", "whole"])
def test_an_image_of_a_shard_that_cannot_be_decoded_is_named_by_its_place(tiny, fit, capfd):
    spoil_image_7(folder_of(tiny) / FILE)
    match = rf"image of record 7 of .*{FILE} cannot be read as an image .*: prepare .*{CHOICE}"
    with pytest.raises(UserError, match=match):
        load_tiny(tiny, fit=fit)
    capfd.readouterr()
    found = load_tiny(tiny, fit=fit, damaged="skip")
    assert len(found.train) + len(found.validation) == 119
    assert ", 1 damaged images skipped" in found.note
    assert capfd.readouterr().err.count("skipped: The image of record 7 ") == 1


def test_labels_stay_with_their_images(tiny):
    before = load_tiny(tiny)
    cut(folder_of(tiny) / FILE)
    found = load_tiny(tiny, damaged="skip")
    label_of = {
        x.tobytes(): y
        for s in (before.train, before.validation)
        for x, y in zip(s.images_NHWC, s.labels_N, strict=True)
    }
    for split in (found.train, found.validation):
        for x, y in zip(split.images_NHWC, split.labels_N, strict=True):
            assert label_of[x.tobytes()] == y
    assert sum(map(len, (found.train, found.validation))) == 90


def test_nothing_left_is_refused_in_any_case(tiny):
    for file in folder_of(tiny).glob("*-train.*"):
        file.unlink()
    first = "tiny-train.array_record-00000-of-00004 cannot be read, nor any other of train: prepare"
    with pytest.raises(UserError, match=f"record 0 of .*{first}"):
        load_tiny(tiny, damaged="skip")


@pytest.mark.parametrize("damage", ["cut in half", "other records"])
def test_a_set_of_one_shard_names_it(tiny, damage):
    file = folder_of(tiny) / "tiny-test.array_record-00000-of-00001"
    if damage == "cut in half":
        cut(file)
    else:
        rewrite(file, lambda records: [b"other"] * len(records))
    for choice in ("refuse", "skip"):
        with pytest.raises(UserError, match=f"{file.name} cannot be read, nor any other of test"):
            load_tiny(tiny, damaged=choice)


def test_a_class_missing_in_a_part_of_a_prepared_set(tiny, capfd):
    rewrite(folder_of(tiny) / "tiny-test.array_record-00000-of-00001", lambda r: [*r[:2], *r[:2]])
    with pytest.raises(UserError, match=r"test part of .* has no image of class b.*" + CHOICE):
        load_tiny(tiny)
    found = load_tiny(tiny, damaged="skip")
    assert "no image of class b in test" in found.note
    assert capfd.readouterr().err.count("skipped: ") == 1


def test_a_lost_shard_can_cost_train_a_class(tiny):
    for number in (2, 3):
        (folder_of(tiny) / f"tiny-train.array_record-0000{number}-of-00004").unlink()
    found = load_tiny(tiny, damaged="skip")
    assert found.note.endswith(
        ", 60 damaged images skipped, no image of class b in train, "
        "no image of class b in validation"
    )


def test_the_cache_keeps_refused_and_skipped_apart(tiny, tmp_path, capfd):
    cache = str(tmp_path / "cache")
    whole_set = load_tiny(tiny, cache_dir=cache)
    assert load_tiny(tiny, cache_dir=cache, damaged="skip").digest == whole_set.digest
    cut(folder_of(tiny) / FILE)
    notes = [load_tiny(tiny, cache_dir=cache, damaged="skip").note for _ in range(2)]
    assert notes[0] == notes[1] == whole_set.note + ", 30 damaged images skipped"
    assert capfd.readouterr().err.count("skipped: ") == 1  # the second came from the cache
    with pytest.raises(UserError, match=FILE):
        load_tiny(tiny, cache_dir=cache)


def test_a_slice_of_a_part_knows_its_places(tiny):
    opened = tfds_source.open_prepared("tiny", str(tiny))
    records = opened.records("train[40:100]")
    assert len(records) == 60
    assert records.where(0).startswith("record 10 of ") and records.where(0).endswith(FILE)
    assert records.where(19).startswith("record 29 of ") and records.where(19).endswith(FILE)
    assert records.where(20).startswith("record 0 of ")
    assert records.readable("refuse").tolist() == list(range(60))
    cut(folder_of(tiny) / FILE)
    assert opened.records("train[40:100]").readable("skip").tolist() == list(range(20, 60))
    assert len(opened.records("train[60:]").readable("refuse")) == 60


# --- streamed sets: nothing is skipped, and no message offers it ---------------------------------

NO_CHOICE = r": prepare the set again\.$"


@pytest.mark.parametrize("damage", SHARD_DAMAGE)
def test_a_stream_names_a_damaged_shard(tiny, damage):
    SHARD_DAMAGE[damage](folder_of(tiny) / FILE)
    match = f"{FILE} is missing or damaged, and 30 of its 30 records are lost{NO_CHOICE}"
    with pytest.raises(UserError, match=match):
        load_tiny(tiny, loading="stream")


def test_a_stream_names_a_record_whose_label_cannot_be_read(tiny):
    flip_bits_of_a_record(folder_of(tiny) / FILE)
    with pytest.raises(UserError, match=rf"^record \d+ of .*{FILE} cannot be read .*{NO_CHOICE}"):
        load_tiny(tiny, loading="stream")


def refusals(split) -> list[str]:
    """What is said of the images of a streamed split, one by one."""
    found = []
    for row in range(len(split)):
        try:
            split.image(row)
        except UserError as flaw:
            found.append(str(flaw))
    return found


@pytest.mark.parametrize(
    ("damage", "what"),
    [(spoil_image_7, "The image of record 7"), (flip_bits_of_a_record, r"record \d+")],
)
@pytest.mark.parametrize("split", ["fixed", "folds"])
def test_an_image_that_a_stream_meets_is_named_by_its_place(tiny, tmp_path, damage, what, split):
    how = {"loading": "stream", "cache_dir": str(tmp_path / "cache"), "split": split}
    load_tiny(tiny, **how)  # keeps the labels, so the damage is first met with the images
    file = folder_of(tiny) / FILE
    stat = file.stat()
    damage(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = load_tiny(tiny, **how)
    said = {part: refusals(part) for part in (found.train, found.validation)}
    (message,) = (message for messages in said.values() for message in messages)
    refusal = rf"^{what} of .*{FILE} cannot be read.*{NO_CHOICE}"
    assert re.search(refusal, message)
    (part,) = (part for part, messages in said.items() if messages)
    steps = {"seed": 0, "batch": len(part), "shuffle": "fresh", "first": 0, "stop": 1}
    for workers in (0, 1):
        with (
            training_batches(part, **steps, crop=SIDE, workers=workers) as found,
            pytest.raises(UserError) as raised,
        ):
            next(found)
        assert re.search(refusal, str(raised.value))


def test_a_stream_names_a_class_that_a_prepared_part_lacks(tiny):
    rewrite(folder_of(tiny) / "tiny-test.array_record-00000-of-00001", lambda r: [*r[:2], *r[:2]])
    match = r"test part of .* has no image of class b: choose another data set\.$"
    with pytest.raises(UserError, match=match):
        load_tiny(tiny, loading="stream")


def test_a_stream_names_an_empty_class_folder(tmp_path):
    counts = {f"{part}/{c}": 2 for part in ("train", "validation", "test") for c in "ab"}
    root = make_folder(tmp_path, counts | {"train/b": 0})
    with pytest.raises(UserError, match=r"b is empty: add images or remove it\.$"):
        load(f"folder:{root}", **options(loading="stream"))


def test_the_places_of_two_parts_together(tiny):
    records = tfds_source.open_prepared("tiny", str(tiny)).records("train+test")
    assert len(records) == 124
    assert re.fullmatch(rf"record 9 of .*{FILE}", records.where(39))
    assert re.fullmatch(r"record 3 of .*tiny-test.array_record-00000-of-00001", records.where(123))


def test_damaged_travels_between_processes():
    flaw = pickle.loads(pickle.dumps(Damaged("x is torn", "mend it")))
    assert str(flaw) == "x is torn: mend it, or go on without it by --set damaged=skip."


def test_every_image_is_whole_and_its_pixels_are_the_files(prepared):
    """The fixture itself: what is compared above is what was written."""
    found = load_tiny(prepared)
    with Image.open(io.BytesIO((prepared.parent / "test-1-0.png").read_bytes())) as image:
        np.testing.assert_array_equal(found.test.images_NHWC[2], np.asarray(image))
