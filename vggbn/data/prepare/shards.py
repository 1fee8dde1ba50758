"""Encoded images written as a prepared TFDS set: ArrayRecord shards and metadata, no TensorFlow.

DATA_DIR/NAME.partial/VERSION fills with shards, each under another name until it is whole. The
metadata come last, then the folder moves to DATA_DIR/NAME/VERSION: what lies there is finished.
"""

import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vggbn import files
from vggbn.data.pixels.decode import Damaged
from vggbn.data.pixels.defect import defect
from vggbn.data.prepare.archive import Member
from vggbn.data.progress import progress
from vggbn.data.records import SKIPPED, count
from vggbn.errors import UserError

_SHARD_BYTES = 128 * 2**20
_RECORD_BYTES, _FILE_BYTES = 256, 256 * 2**10  # more than ArrayRecord and the names add


class Example(NamedTuple):
    """One encoded image and its label, an index into the classes."""

    member: Member
    label: int


@dataclass(frozen=True)
class Collection:
    """What is to be prepared: labelled encoded images, in the order in which they are stored."""

    name: str
    version: str
    classes: tuple[str, ...]
    parts: Mapping[str, Sequence[Example]]
    description: str


@dataclass(frozen=True)
class _Shard:
    part: str
    file: Path  # once it is whole
    examples: Sequence[Example]


def finished_folder(data_dir: str, name: str, version: str) -> Path | None:
    """The folder of a set that is prepared already."""
    folder = Path(data_dir).expanduser() / name / version
    return folder if (folder / "dataset_info.json").is_file() else None


def write_set(
    collection: Collection,
    data_dir: str,
    *,
    damaged: str = "refuse",
    shard_bytes: int = _SHARD_BYTES,
) -> Path:
    """Write the collection under data_dir, for `data.load` and TFDS; returns its folder.

    The encoded bytes stay as they are. So does their order: readers shuffle by random access, but
    a slice such as TFDS's 'train[:10%]' is one of classes. A shard holds about shard_bytes bytes;
    threads write them, one a core. A run that was stopped goes on with the shards that are
    missing, or begins anew when the images have changed since.

    damaged: "refuse": Damaged, naming the first image with a `defect`, and the set stays
    unfinished; "skip": each is named on stderr, left out, and listed in SKIPPED.
    Raises UserError, before anything is written, when the disk has too little room.
    """
    target = Path(data_dir).expanduser() / collection.name / collection.version
    if target.exists():
        raise UserError(f"{target} is there already, and not a prepared set: move it away.")
    partial = target.parent.with_name(f"{collection.name}.partial")
    folder = partial / collection.version
    shards = _plan(collection, folder, shard_bytes)
    _continue_or_begin(partial, folder, _digest(shards))
    missing = [shard for shard in shards if not _is_whole(shard, damaged)]
    _require_space(folder, missing)
    features = _features(collection.classes)
    serialise = _serialiser(features)
    written = _in_threads(lambda shard: _write_shard(shard, serialise, damaged), missing)
    n = sum(len(shard.examples) for shard in missing)
    for _ in progress(written, n, f"writing {collection.name}"):
        pass
    skipped = {name: why for shard in shards for name, why in _skipped(shard).items()}
    _write_metadata(collection, folder, shards, features, skipped)
    if skipped:
        print(f"left out {len(skipped):,} damaged images, see {target / SKIPPED}", file=sys.stderr)
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    shutil.rmtree(partial)
    return target


def _plan(collection: Collection, folder: Path, shard_bytes: int) -> list[_Shard]:
    """Every part in shards of equally many images, one more or less."""
    shards = []
    for part, examples in collection.parts.items():
        n, size = len(examples), sum(example.member.size for example in examples)
        total = max(1, min(n, -(-size // shard_bytes)))
        for k in range(total):
            file = folder / f"{collection.name}-{part}.array_record-{k:05}-of-{total:05}"
            shards.append(_Shard(part, file, examples[n * k // total : n * (k + 1) // total]))
    return shards


def _digest(shards: Sequence[_Shard]) -> str:
    """A sha256 over all that tells whether the shards would get other bytes."""
    files = {example.member.file for shard in shards for example in shard.examples}
    changed = {file: file.stat().st_mtime_ns for file in files}
    sha = hashlib.sha256()
    for shard in shards:
        sha.update(shard.file.name.encode())
        for member, label in shard.examples:
            facts = (member.name, member.offset, member.size, label, changed[member.file])
            sha.update(repr(facts).encode())
    return sha.hexdigest()


def _continue_or_begin(partial: Path, folder: Path, digest: str) -> None:
    """Keep what an earlier run has left if its images were the same, else remove it."""
    plan = partial / "plan"
    if plan.is_file() and plan.read_text() != digest:
        print(f"The images have changed since {partial}: it begins anew.", file=sys.stderr)
        shutil.rmtree(partial)
    folder.mkdir(parents=True, exist_ok=True)
    files.write(plan, digest)


def _is_whole(shard: _Shard, damaged: str) -> bool:
    """Whether an earlier run has written it, leaving out nothing that is to be refused now."""
    skipped = _skipped(shard)
    expected = len(shard.examples) - len(skipped)
    return count(shard.file) == expected and not (skipped and damaged == "refuse")


def _require_space(folder: Path, shards: Sequence[_Shard]) -> None:
    needed = sum(e.member.size + _RECORD_BYTES for shard in shards for e in shard.examples)
    needed += _FILE_BYTES * len(shards)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{needed:,} bytes are needed in {folder} and {free:,} are free: "
            "make room or name another --data-dir."
        )


def _features(classes: Sequence[str]):
    """Those of TFDS's imagenet2012, with these classes."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(classes)),
            "file_name": tfds.features.Text(),
        }
    )


def _in_threads(write: Callable[[_Shard], None], shards: Sequence[_Shard]) -> Iterator[Example]:
    """Write the shards; yields the images of each one that is done."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            writing = {pool.submit(write, shard): shard for shard in shards}
            for done in as_completed(writing):
                done.result()
                yield from writing[done].examples
        finally:
            pool.shutdown(cancel_futures=True)


def _serialiser(features) -> Callable[[bytes, Example], bytes]:
    """(encoded image, example) -> record, the same bytes in every process."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    serializer = ExampleSerializer(features.get_serialized_info())

    def serialise(raw: bytes, example: Example) -> bytes:
        fields = features.encode_example(
            {"image": io.BytesIO(raw), "label": example.label, "file_name": example.member.name}
        )
        # features.serialize_example lets each process put the fields in an order of its own.
        return serializer.get_tf_example(fields).SerializeToString(deterministic=True)

    return serialise


def _write_shard(shard: _Shard, serialise: Callable[[bytes, Example], bytes], damaged: str) -> None:
    """Write beside the folder and rename: in the folder lie whole shards only."""
    skipped = {}

    def records() -> Iterator[bytes]:
        for example in shard.examples:
            raw = example.member.read()
            if why := defect(raw):
                problem = f"{example.member.where} cannot be read as an image ({why})"
                Damaged(problem, "get it again").refuse_or_tell(damaged)
                skipped[example.member.name] = why
            else:
                yield serialise(raw, example)

    with files.whole(shard.file, beside=shard.file.parent.parent) as part:
        _write_records(part, records())
        _list_skipped(shard, skipped)


def _write_records(file: Path, records: Iterable[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    try:
        with closing(ArrayRecordWriter(str(file), "group_size:1")) as writer:
            for record in records:
                writer.write(record)
    except RuntimeError as error:  # ArrayRecord's, on a full disk
        raise UserError(
            f"{file} cannot be written ({error}): look for room on its disk."
        ) from error


def _list_skipped(shard: _Shard, skipped: Mapping[str, str]) -> None:
    """Keep names and reasons for later runs and SKIPPED, outside the folder of shards."""
    path = _skipped_path(shard)
    if skipped:
        files.write(path, json.dumps(skipped))
    else:
        path.unlink(missing_ok=True)


def _skipped(shard: _Shard) -> Mapping[str, str]:
    """{name: reason} of the images that the shard lacks."""
    path = _skipped_path(shard)
    return json.loads(path.read_text()) if path.is_file() else {}


def _skipped_path(shard: _Shard) -> Path:
    return shard.file.parent.with_name(f"{shard.file.name}.skipped")


def _write_metadata(
    collection: Collection,
    folder: Path,
    shards: Sequence[_Shard],
    features,
    skipped: Mapping[str, str],
) -> None:
    """What TFDS keeps beside shards, and SKIPPED where images were left out."""
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,  # pyright: ignore[reportArgumentType]
        dataset_name=collection.name,
        filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
    splits = []
    for part in collection.parts:
        mine = [shard for shard in shards if shard.part == part]
        splits.append(
            tfds.core.SplitInfo(
                name=part,
                shard_lengths=[len(s.examples) - len(_skipped(s)) for s in mine],
                num_bytes=sum(shard.file.stat().st_size for shard in mine),
                filename_template=template,
            )
        )
    description = collection.description
    if skipped:
        description += f" {len(skipped)} damaged images were left out, see {SKIPPED}."
        (folder / SKIPPED).write_text(json.dumps(skipped, indent=1))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        version=collection.version,
        filename_template=template,
        description=description,
        supervised_keys=("image", "label"),
        check_data=False,
    )
