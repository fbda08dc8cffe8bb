"""The files of a checkpoint as streams: read in chunks, written from start to end, with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader, BufferedWriter
from pathlib import Path

from converter.errors import ModelReadError, OutputError

CHUNK_SIZE = 1 << 20  # bytes, a multiple of float32's; what fits the processor's cache is twice as fast


class Reader:
    """A data file to read in chunks, each into the same buffer."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self.path = path
        self._file = file
        self._buffer = memoryview(bytearray(CHUNK_SIZE))

    def chunks(self, offset: int, size: int) -> Iterator[memoryview]:
        """The bytes from `offset` on; each chunk is valid until the next one.

        Raises:
          ModelReadError: the file cannot be read, or ends before.
        """
        with _reading(self.path):
            self._file.seek(offset)
        while size > 0:
            wanted = min(size, CHUNK_SIZE)
            filled = 0
            while filled < wanted:
                with _reading(self.path):
                    count = self._file.readinto(self._buffer[filled:wanted])
                if not count:
                    raise ModelReadError(
                        f'The data file "{self.path}" ends {size - filled} bytes too early for a tensor that the '
                        "checkpoint's index lists: it was cut off. Copy or export the model again."
                    )
                filled += count
            yield self._buffer[:wanted]
            size -= wanted


class Writer:
    """A file to write from start to end."""

    def __init__(self, file: BufferedWriter, path: Path) -> None:
        self.position = 0
        self._file = file
        self._path = path

    def write(self, chunk: memoryview | bytes) -> None:
        with writing(self._path):
            self._file.write(chunk)
        self.position += len(chunk)


@contextmanager
def open_source(path: Path) -> Iterator[Reader]:
    """A data file that exists.

    Raises:
      ModelReadError: it cannot be read.
    """
    with _reading(path):
        file = path.open("rb")
    with file:
        yield Reader(file, path)


@contextmanager
def create(path: Path, created: ExitStack) -> Iterator[Writer]:
    """A new file, which goes away with `created`.

    Raises:
      OutputError: it exists, or cannot be written.
    """
    with writing(path):
        file = path.open("xb")
    created.callback(path.unlink)
    try:
        yield Writer(file, path)
    finally:
        # What is still in the buffer may find the disk full.
        with writing(path):
            file.close()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f'The checkpoint file "{path}" cannot be written: {error.strerror}.') from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelReadError(
            f'The data file "{path}" of the checkpoint cannot be read: {error.strerror}. Copy the model again, all '
            "of its files."
        ) from error
