"""A file is whole or not there, a line is appended whole, whoever writes and whenever it ends."""

import errno
import fcntl
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from vggbn import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_as_it_is_given(tmp_path):
    files.write(tmp_path / "text", "3×3\n")
    files.write(tmp_path / "bytes", b"\x00\r\n")
    assert (tmp_path / "text").read_bytes() == "3×3\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\r\n"
    assert names(tmp_path) == ["bytes", "text"]


def test_what_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), files.whole(path) as part:
        part.write_text("half of it")
        assert path.read_text() == "before"  # a reader sees nothing of it yet
        raise ZeroDivisionError
    assert path.read_text() == "before" and names(tmp_path) == ["file"]
    with pytest.raises(ZeroDivisionError), files.whole(tmp_path / "new") as part:
        part.write_text("half of it")
        raise ZeroDivisionError
    assert names(tmp_path) == ["file"]


def test_it_is_forced_to_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(path.exists()))
    files.write(path, "x")
    assert seen == [False] and path.exists()


def test_a_device_stays_a_device(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write(pipe, "through it")
    assert os.read(reader, 100) == b"through it"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_may_be_written_beside_its_folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    with files.whole(folder / "shard", beside=tmp_path) as part:
        part.write_text("records")
        assert names(folder) == []
    assert names(folder) == ["shard"] and names(tmp_path) == ["set"]


def test_an_error_names_the_file_that_the_user_knows(tmp_path):
    for path in (tmp_path / "no" / "file", tmp_path):
        with pytest.raises(OSError) as caught:
            files.write(path, "x")
        assert caught.value.filename == str(path)


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16])
def test_a_torn_last_line_is_cut_off_and_no_other(tmp_path, length):
    path = tmp_path / "lines"
    for whole in (b"", b"a\nb\n"):
        path.write_bytes(whole + b"x" * length)
        files.append(path, "new")
        assert path.read_bytes() == whole + b"new\n"


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    files.append(path, "first")

    def write_half(file, raw):
        file.write(raw[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "_write_all", write_half)
    with pytest.raises(OSError) as caught:
        files.append(path, "second")
    assert caught.value.filename == str(path)
    assert path.read_text() == "first\n"


def _append_many(path: Path, letter: str) -> None:
    for _ in range(50):
        files.append(path, letter * 5000)


def test_lines_of_two_processes_do_not_mix(tmp_path):
    path = tmp_path / "deep" / "lines"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_append_many, args=(path, letter)) for letter in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join()
    lines = path.read_text().splitlines()
    assert sorted(lines) == ["a" * 5000] * 50 + ["b" * 5000] * 50


def test_a_file_system_without_locks_takes_lines_and_says_so_once(tmp_path, monkeypatch, capsys):
    def refuse(file, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for line in ("a", "b"):
        files.append(tmp_path / "lines", line)
    assert (tmp_path / "lines").read_text() == "a\nb\n"
    assert capsys.readouterr().err.count("cannot be locked") == 1
