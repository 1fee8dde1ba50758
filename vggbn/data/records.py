"""The records of a prepared part, of which some may be lost, and the shard files they lie in.

ArrayRecord keeps its index at a file's end: in a file that was cut short no record is found.
Flipped bits cost the record they lie in, whose checksum fails, or the index.
"""

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from vggbn.data.pixels.decode import PREPARE_AGAIN, Damaged

SKIPPED = "skipped.json"  # beside a prepared set: the images that were left out, and why


@dataclass(frozen=True)
class Records:
    """Encoded examples, by number from 0: TFDS's data source, and its file instructions."""

    source: Any
    files: Sequence[Any]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> Mapping:
        """One record. Raises Damaged when it cannot be read."""
        try:
            return self.source[number]
        except Exception as error:  # TFDS and ArrayRecord have them of many types
            problem = f"{self.where(number)} cannot be read ({error})"
            raise Damaged(problem, PREPARE_AGAIN) from error

    def where(self, number: int) -> str:
        """A record for messages: 'record 17 of FILE', counted from 0."""
        k = bisect(self._starts, number) - 1
        file = self.files[k]
        return f"record {number - self._starts[k] + file.skip} of {file.filename}"

    @cached_property
    def _starts(self) -> list[int]:
        """The number of each file's first record."""
        return list(accumulate((file.take for file in self.files[:-1]), initial=0))

    def readable(self, damaged: str) -> np.ndarray:
        """The numbers of the records that the indices of their files have, int [N], sorted.

        damaged: "refuse": Damaged, naming the first file that is missing, cut short or of too few
        records; "skip": each is named on stderr.
        """
        numbers = []
        for start, file in zip(self._starts, self.files, strict=True):
            lost = max(0, file.examples_in_shard - (count(Path(file.filename)) or 0))
            if lost:
                problem = (
                    f"{file.filename} is missing or damaged, and {lost:,} of its "
                    f"{file.examples_in_shard:,} records are lost"
                )
                Damaged(problem, PREPARE_AGAIN).refuse_or_tell(damaged)
            here = min(file.take, file.examples_in_shard - lost - file.skip)
            numbers.append(np.arange(start, start + max(0, here)))
        return np.concatenate(numbers)

    def read(self, numbers: Sequence[int]) -> Sequence[Mapping | Damaged]:
        """The records of some numbers; what cannot be read is the Damaged that says so."""
        try:
            return self.source.__getitems__(numbers)
        except Exception:  # one bad record fails them all
            return [self._record_or_flaw(number) for number in numbers]

    def intact(self, numbers: Sequence[int]) -> Sequence[Mapping]:
        """The records of some numbers. Raises Damaged for the first that cannot be read."""
        found = []
        for record in self.read(numbers):
            if isinstance(record, Damaged):
                raise record
            found.append(record)
        return found

    def _record_or_flaw(self, number: int) -> Mapping | Damaged:
        try:
            return self[number]
        except Damaged as flaw:
            return flaw


def count(file: Path) -> int | None:
    """How many records the index of an ArrayRecord file has; None when it has none."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(file), options="readahead_buffer_size:0")
    return reader.num_records() if reader.ok() else None
