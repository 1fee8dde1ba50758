"""Preparing ImageNet's tars and folders of images without TensorFlow, stopped halfway or not."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from vggbn.commands.prepare import main
from vggbn.data import load
from vggbn.data.pixels.defect import defect
from vggbn.data.prepare import imagenet as imagenet_module
from vggbn.data.prepare import shards
from vggbn.data.prepare.archive import members, whole
from vggbn.data.prepare.imagenet import imagenet
from vggbn.data.prepare.sets import prepare_folder
from vggbn.data.prepare.shards import finished_folder, write_set
from vggbn.errors import UserError

# TFDS and what it imports use names that Python will drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SYNSETS = ("n01440764", "n01443537", "n01484850")
EACH = 4
COUNTS = {"train": 12, "validation": 5}
LABELS = [SYNSETS[k] for k in (2, 0, 1, 1, 2)]  # of validation image 1, 2, ...
TINY = {"counts": COUNTS, "validation_labels": LABELS}
SIDE = 24
TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def picture(seed: int, *, kind: str = "JPEG", mode: str = "RGB", side: int = SIDE) -> bytes:
    channels = {"RGB": 3, "CMYK": 4}[mode]
    x = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    raw = io.BytesIO()
    Image.fromarray(x, mode=None if mode == "RGB" else mode).save(raw, kind)
    return raw.getvalue()


def rgb(raw: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))


def tar_of(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


def train_images() -> dict[str, dict[str, bytes]]:
    """One is a PNG and one a CMYK JPEG, as in the real set."""
    images = {
        synset: {f"{synset}_{row}.JPEG": picture(10 * k + row) for row in range(EACH)}
        for k, synset in enumerate(SYNSETS)
    }
    images[SYNSETS[0]][f"{SYNSETS[0]}_1.JPEG"] = picture(98, kind="PNG")
    images[SYNSETS[1]][f"{SYNSETS[1]}_2.JPEG"] = picture(99, mode="CMYK")
    return images


def validation_images() -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{row:08}.JPEG": picture(200 + row) for row in range(1, 6)}


def make_archives(folder: Path, train=None, validation=None) -> Path:
    """The two tars; the inner tars and the validation images stand in no order."""
    folder.mkdir(exist_ok=True)
    train = train_images() if train is None else train
    inner = {f"{synset}.tar": tar_of(train[synset]) for synset in sorted(train, reverse=True)}
    (folder / TRAIN).write_bytes(tar_of(inner))
    validation = validation_images() if validation is None else validation
    (folder / VALIDATION).write_bytes(tar_of(dict(reversed(validation.items()))))
    return folder


@pytest.fixture
def archives(tmp_path) -> Path:
    return make_archives(tmp_path / "archives")


def write_tiny(archives: Path, out: Path, **how) -> Path:
    """Several small shards of each part."""
    tiny = imagenet(str(archives), **TINY)
    return write_set(tiny, str(out), **{"shard_bytes": 3000, **how})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def load_tiny(out: Path, name: str = "imagenet2012", **changes):
    options = {"image_size": SIDE, "fit": "resize", "split": "fixed", "seed": 0}
    return load(name, **options, data_dir=str(out), **changes)


# --- what is written -----------------------------------------------------------------------------


def test_imagenet_is_read_back_pixel_by_pixel(archives, tmp_path):
    folder = write_tiny(archives, tmp_path / "out")
    assert folder == tmp_path / "out" / "imagenet2012" / "5.1.0"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["imagenet2012"]
    assert len(list(folder.glob("*-train.array_record-*"))) > 2
    # A fourth of train would be validation; three images each are enough for all classes.
    found = load_tiny(tmp_path / "out", damaged="skip")
    assert found.classes == SYNSETS
    assert found.note.startswith("ImageNet 2012 (TFDS 5.1.0)")
    by_pixels = {
        rgb(raw).tobytes(): label
        for label, synset in enumerate(SYNSETS)
        for raw in train_images()[synset].values()
    }
    assert len(by_pixels) == 12
    both = [found.train, found.validation]
    seen = {x.tobytes(): y for s in both for x, y in zip(s.images_NHWC, s.labels_N, strict=True)}
    assert seen == by_pixels
    expected = np.stack([rgb(raw) for raw in validation_images().values()])
    np.testing.assert_array_equal(found.test.images_NHWC, expected)
    assert found.test.labels_N.tolist() == [2, 0, 1, 1, 2]
    assert "tensorflow" not in sys.modules


def test_tfds_itself_reads_the_bytes_unchanged(archives, tmp_path):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(write_tiny(archives, tmp_path / "out"))
    assert builder.info.splits["train"].num_examples == 12
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    flat = [item for synset in SYNSETS for item in train_images()[synset].items()]
    assert [(r["file_name"].decode(), r["image"]) for r in source] == flat  # in listing order
    assert [r["label"] for r in source] == [0] * 4 + [1] * 4 + [2] * 4
    assert {"image", "label", "file_name"} == set(builder.info.features)


def test_the_real_validation_labels_lie_in_the_installed_package():
    labels = imagenet_module._bundled_labels()
    assert len(labels) == 50_000
    assert sorted(set(labels))[:3] == list(SYNSETS)
    assert np.unique(labels, return_counts=True)[1].tolist() == [50] * 1000
    assert labels[0] == "n01751748"  # a sea snake, as everybody's copy has it


def make_folder(root: Path) -> Path:
    for part, n in (("train", 3), ("validation", 1), ("test", 2)):
        for label, name in enumerate("ab"):
            for row in range(n):
                path = root / part / name / f"{row}.{'png' if row else 'jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                kind = "PNG" if row else "JPEG"
                path.write_bytes(picture(len(part) * 100 + label * 10 + row, kind=kind))
    return root


def test_a_folder_prepared_is_the_folder(tmp_path):
    root = make_folder(tmp_path / "photos")
    prepare_folder(str(root), "photos", str(tmp_path / "out"))
    found, original = load_tiny(tmp_path / "out", "photos"), load_tiny(tmp_path, f"folder:{root}")
    assert found.digest == original.digest
    assert (found.classes, found.flip) == (original.classes, True)
    assert found.note == "photos (TFDS 1.0.0)"


# --- stopped, and gone on with -------------------------------------------------------------------


def killed(archives: Path, out: Path, after: int) -> None:
    """Prepare in another process, which kills itself while it writes shard number `after`."""
    code = f"""
import os, signal
from pathlib import Path
from vggbn.data.prepare import shards
from tests.data.test_prepare import write_tiny
os.cpu_count = lambda: 1
defect = shards.defect
def look(raw):  # at the first image of shard number {after}
    if len(list(Path({str(out)!r}).glob("*/*/*.array_record-*"))) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    return defect(raw)
shards.defect = look
write_tiny(Path({str(archives)!r}), Path({str(out)!r}))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == -signal.SIGKILL, run.stderr


def test_a_killed_run_goes_on_and_gives_the_same_bytes(archives, tmp_path, monkeypatch):
    reference = write_tiny(archives, tmp_path / "reference")
    out = tmp_path / "out"
    killed(archives, out, after=3)
    assert finished_folder(str(out), "imagenet2012", "5.1.0") is None
    with pytest.raises(UserError, match="is not prepared"):
        load_tiny(out)
    partial = out / "imagenet2012.partial"
    before = {path: path.stat().st_ino for path in (partial / "5.1.0").iterdir()}
    assert len(before) == 3
    assert list(partial.glob("*.part"))
    written = []
    monkeypatch.setattr(
        shards, "_write_shard", lambda s, *rest, write=shards._write_shard: (
            written.append(s.file), write(s, *rest)
        )
    )  # fmt: skip
    folder = write_tiny(archives, out)
    assert contents(folder) == contents(reference)
    assert not set(written) & set(before)
    assert not partial.exists()


def test_a_shard_that_is_not_whole_is_written_again(archives, tmp_path):
    reference = write_tiny(archives, tmp_path / "reference")
    out = tmp_path / "out"
    killed(archives, out, after=3)
    cut, *_ = sorted((out / "imagenet2012.partial" / "5.1.0").iterdir())
    cut.write_bytes(cut.read_bytes()[:70_000])
    assert contents(write_tiny(archives, out)) == contents(reference)


def test_changed_images_begin_anew(archives, tmp_path, capfd):
    out = tmp_path / "out"
    killed(archives, out, after=3)
    changed = validation_images()
    changed["ILSVRC2012_val_00000001.JPEG"] = picture(77)
    make_archives(archives, validation=changed)
    os.utime(archives / VALIDATION, (1, 1))
    folder = write_tiny(archives, out)
    assert "it begins anew" in capfd.readouterr().err
    assert contents(folder) == contents(write_tiny(archives, tmp_path / "reference"))


def test_a_prepared_set_is_left_as_it_is(archives, tmp_path, monkeypatch, capsys):
    folder = write_tiny(archives, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    shutil.rmtree(archives)
    arguments = ["imagenet2012", "--archives", str(archives), "--data-dir"]
    with pytest.raises(SystemExit) as raised:
        main([*arguments, str(tmp_path)])
    assert raised.value.code == 0
    assert str(folder) in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


# --- what is wrong with the archives -------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "expected"), [("train", {"train": 13}), ("validation", {"validation": 6})]
)
def test_other_numbers_of_images_are_refused(archives, part, expected):
    n = COUNTS[part]
    with pytest.raises(UserError, match=f"{part} part .* has {n} images, and {n + 1} are expected"):
        imagenet(str(archives), counts=COUNTS | expected, validation_labels=LABELS)


def test_the_command_line_wants_the_whole_of_imagenet(archives, tmp_path, capsys):
    arguments = ["imagenet2012", "--archives", str(archives), "--data-dir"]
    with pytest.raises(SystemExit) as raised:
        main([*arguments, str(tmp_path)])
    assert raised.value.code == 2
    assert "1,281,167 are expected" in capsys.readouterr().err
    assert not (tmp_path / "imagenet2012").exists()


@pytest.mark.parametrize("name", [TRAIN, VALIDATION])
def test_a_missing_tar_is_named(archives, name):
    (archives / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing in .*archives: get it"):
        imagenet(str(archives), **TINY)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", [TRAIN, VALIDATION])
def test_a_truncated_tar_is_named(archives, name, share):
    raw = (archives / name).read_bytes()
    (archives / name).write_bytes(raw[: int(share * len(raw.rstrip(b"\0")))])
    with pytest.raises(UserError, match=f"{name} is not a whole tar"):
        imagenet(str(archives), **TINY)


def test_an_inner_tar_without_its_end_does_not_run_into_the_next(tmp_path):
    one, two = (tar_of({f"{k}.JPEG": picture(k)}) for k in range(2))
    cut = one[: -len(one) + len(one.rstrip(b"\0")) - 600]  # inside the image
    cut = cut[: len(cut) // 512 * 512]
    outer = tmp_path / "outer.tar"
    outer.write_bytes(tar_of({"one.tar": cut, "two.tar": two}))
    first, second = members(whole(outer))
    assert [member.name for member in members(second)] == ["1.JPEG"]
    with pytest.raises(UserError, match=r"one\.tar in .*outer\.tar is not a whole tar"):
        list(members(first))


def test_a_file_that_is_no_tar_is_named(archives):
    (archives / TRAIN).write_bytes(b"<html>sign in first</html>" * 99)
    with pytest.raises(UserError, match=f"{TRAIN} is not a whole tar"):
        imagenet(str(archives), **TINY)


def test_labels_go_by_the_number_in_the_name(archives, tmp_path):
    some = validation_images()
    del some["ILSVRC2012_val_00000002.JPEG"]
    make_archives(archives, validation=some)
    counts = COUNTS | {"validation": 4}
    tiny = imagenet(str(archives), counts=counts, validation_labels=LABELS)
    assert [example.label for example in tiny.parts["validation"]] == [2, 1, 1, 2]
    for name in ("ILSVRC2012_val_00000006.JPEG", "holiday.JPEG"):
        make_archives(archives, validation=some | {name: picture(6)})
        with pytest.raises(UserError, match=f"{name} in .* is none of"):
            imagenet(str(archives), **TINY)
    make_archives(archives)
    with pytest.raises(UserError, match=r"00000003\.JPEG in .* is of class n9, which"):
        imagenet(str(archives), counts=COUNTS, validation_labels=[*LABELS[:2], "n9", *LABELS[3:]])


@pytest.mark.parametrize("kind", ["text", "cut", "empty"])
def test_a_damaged_image_is_refused_or_left_out(tmp_path, kind, capfd):
    images, name = train_images(), f"{SYNSETS[1]}_0.JPEG"
    raw = images[SYNSETS[1]][name]
    images[SYNSETS[1]][name] = {"text": b"no image", "cut": raw[:-20], "empty": b""}[kind]
    archives, out = make_archives(tmp_path / "archives", train=images), tmp_path / "out"
    with pytest.raises(
        UserError, match=f"{name} in .*{TRAIN} cannot be read as an .*get it again, or"
    ):
        write_tiny(archives, out)
    assert not (out / "imagenet2012").exists()
    capfd.readouterr()
    folder = write_tiny(archives, out, damaged="skip")
    told = capfd.readouterr().err
    assert told.count("skipped: ") == 1 and name in told
    assert f"left out 1 damaged images, see {folder / 'skipped.json'}" in told
    assert list(json.loads((folder / "skipped.json").read_text())) == [name]
    found = load_tiny(out, damaged="skip")
    assert len(found.train) + len(found.validation) == 11
    assert "1 damaged images left out" in found.note and "skipped" not in found.note
    info = json.loads((folder / "dataset_info.json").read_text())
    assert "1 damaged images were left out" in info["description"]


def test_what_was_left_out_is_remembered_and_refused_again(tmp_path, monkeypatch, capfd):
    images, name = train_images(), f"{SYNSETS[0]}_0.JPEG"
    images[SYNSETS[0]][name] = b"no image"
    archives, out = make_archives(tmp_path / "archives", train=images), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(shards, "_write_metadata", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_tiny(archives, out, damaged="skip")
    capfd.readouterr()
    with pytest.raises(UserError, match=name):
        write_tiny(archives, out)
    with monkeypatch.context() as patched:
        patched.setattr(shards, "_write_metadata", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_tiny(archives, out, damaged="skip")
    folder = write_tiny(archives, out, damaged="skip")  # writes no shard, knows what is missing
    assert list(json.loads((folder / "skipped.json").read_text())) == [name]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_defects_are_seen_without_decoding_much(kind, monkeypatch):
    raw = picture(1, kind=kind)
    assert defect(raw) is None
    assert defect(raw[: len(raw) // 2]) is not None
    assert defect(raw[:-20]) is not None  # the header is whole
    assert defect(raw + bytes(3)) is None  # padding is harmless
    assert defect(b"") is not None
    monkeypatch.setattr(type(Image.open(io.BytesIO(raw))), "load", lambda image: 1 / 0)
    assert (defect(raw) is None) == (kind in ("JPEG", "PNG"))  # the others are decoded


def test_a_jpeg_with_bytes_behind_its_end_is_decoded_before_it_is_refused():
    assert defect(picture(1) + b"made with a camera") is None


# --- disk, names, flags --------------------------------------------------------------------------


def test_too_small_a_disk_is_refused_before_anything_is_written(archives, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4_000))
    with pytest.raises(UserError, match=r"[\d,]{6,} bytes are needed in .* and 4,000 are free"):
        write_tiny(archives, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*array_record*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_fills_up_is_one_sentence():
    with pytest.raises(
        UserError, match=r"/dev/full cannot be written .*: look for room on its disk"
    ):
        shards._write_records(Path("/dev/full"), [bytes(100)])


def test_the_room_asked_for_is_enough_and_not_much_more(archives, tmp_path, monkeypatch):
    written = sum(map(len, contents(write_tiny(archives, tmp_path / "out")).values()))
    for room, enough in ((written, False), (3 * written, True)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path, room=room: SimpleNamespace(free=room)
        )
        if enough:
            write_tiny(archives, tmp_path / "again")
        else:
            with pytest.raises(UserError, match="bytes are needed"):
                write_tiny(archives, tmp_path / "again")


def test_the_command_line_names_its_own_choice(tmp_path, capsys):
    root, out = make_folder(tmp_path / "photos"), tmp_path / "out"
    (root / "train" / "a" / "0.jpg").write_text("no image")
    command = [f"folder:{root}", "--name", "photos", "--data-dir", str(out)]
    with pytest.raises(SystemExit) as raised:
        main(command)
    told = capsys.readouterr().err
    assert raised.value.code == 2 and "0.jpg cannot be read as an image" in told
    assert told.endswith("or go on without it by --damaged skip.\n")
    with pytest.raises(SystemExit) as raised:
        main([*command, "--damaged", "skip"])
    assert raised.value.code == 0
    assert list(json.loads((out / "photos" / "1.0.0" / "skipped.json").read_text())) == [
        "train/a/0.jpg"
    ]


@pytest.mark.parametrize("name", ["Photos", "my-photos", "9", "", "mnist5k"])
def test_a_name_that_cannot_be_loaded_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot be the name"):
        prepare_folder(str(make_folder(tmp_path)), name, str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("folder:x", "needs a name as a set: add --name"),
        ("cifar10 --archives x", "--archives is for imagenet2012"),
        ("cifar10 --name x", "--name is for folder:PATH"),
        ("cifar10 --damaged skip", "--damaged is for folder:PATH and imagenet2012"),
        ("imagenet2012 --archives nowhere", "ILSVRC2012_img_train.tar is missing in nowhere"),
        ("folder:nowhere --name x", "nowhere does not exist"),
        ("folder: --name x", "has no path: write folder:PATH"),
    ],
)
def test_a_command_that_cannot_work_is_one_sentence(arguments, words, capsys, tmp_path):
    with pytest.raises(SystemExit) as raised:
        main([*arguments.split(), "--data-dir", str(tmp_path)])
    told = capsys.readouterr().err
    assert raised.value.code == 2 and words in told and told.count("\n") == 1
