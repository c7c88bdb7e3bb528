"""The files in ZIP and TAR archives, read by name.

Archives come from elsewhere. Nothing is unpacked, so no name and no link in one can place a file anywhere.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from seg.errors import UserError, shown
from seg.files import irregular

_MOST = 2**31  # Bytes of one file in an archive.
_GROWTH = 200  # Largest factor of decompression; more than that of any real archive.
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError, KeyError, MemoryError),  # For damaged headers.
)


class Archive:
    """The regular files in an archive; links and devices in it are omitted.

    A TAR archive may be compressed; its files are then read fastest in their order.

    Args:
      path: a file of a local disk.

    Attributes:
      path: the archive.
      names: the names of its files, in its order.
    """

    def __init__(self, path: str):
        self.path = path
        if kind := irregular(path):
            raise UserError(f'{path} is {kind}, expected an archive.')
        with self._reporting_damage():
            members = list(_zip_members(path) if zipfile.is_zipfile(path) else _tar_members(path))
        self._members = {_plain(name): (size, read) for name, size, read in members if size is not None}
        self.names = list(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
          UserError: if there is none of this name, if it is too large, or if it is damaged.
        """
        if name not in self._members:
            near = [other for other in self.names if posixpath.basename(other) == posixpath.basename(name)]
            there = f'There is {shown(near[0], 120)}.' if near else f'It holds {len(self.names)} files.'
            raise UserError(f'{self.path}: there is no file {shown(name, 120)} in this archive. {there}')
        size, read = self._members[name]
        if size > _MOST:
            raise UserError(f'{self.path}: {shown(name, 120)} has {size} bytes, expected at most {_MOST}.')
        with self._reporting_damage(name):
            content = read()
            if len(content) != size:
                raise EOFError('the archive ends within it')
        return content

    def beginning(self, name: str) -> str:
        """The folders before `name` in this archive: 'a/b/' if it has the file 'a/b/<name>'; '' if it has none."""
        found = [other for other in self.names if other == name or other.endswith(f'/{name}')]
        return min(found, key=len)[: -len(name)] if found else ''

    @contextlib.contextmanager
    def _reporting_damage(self, name: str = '') -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            within = f'{shown(name, 120)} in it' if name else 'it'
            text = ' '.join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f'{self.path}: {within} cannot be read: {text}. The archive is damaged, or not a ZIP or TAR archive: '
                'remove it, and download it again.'
            ) from error


def read_lines(archive: Archive, name: str) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
      UserError: as `Archive.read`, and if it is not UTF-8.
    """
    try:
        lines = archive.read(name).decode('utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f'{archive.path}: {shown(name, 120)} is not text: byte {error.start} is not UTF-8.') from None
    return [line.strip() for line in lines if line.strip()]


def check_names(where: str, names: Sequence[str]) -> None:
    """Refuses names of images outside of a folder, because names of result files are derived from them.

    Raises:
      UserError: names the first one.
    """
    for name in names:
        if not name or name.startswith('/') or '\0' in name or not {'.', '..', ''}.isdisjoint(name.split('/')):
            raise UserError(f'{where} names the image {shown(name, 120)}: expected a name within a folder.')


# A member: its name, its size (None if it is not a regular file), and a function that reads it.
_Member = tuple[str, int | None, Callable[[], bytes]]


def _plain(name: str) -> str:
    return name.removeprefix('./')


def _zip_members(path: str) -> Iterator[_Member]:
    archive = zipfile.ZipFile(path)
    for info in archive.infolist():
        is_file = not info.is_dir() and (info.external_attr >> 28) in (0, 8)  # The kind of file of Unix, if stated.
        yield info.filename, info.file_size if is_file else None, _reader(archive.read, info)


def _tar_members(path: str) -> Iterator[_Member]:
    archive = tarfile.open(path)  # noqa: SIM115  It stays open for its members.
    most = max(_MOST, _GROWTH * os.path.getsize(path))
    for member in archive:
        if member.offset_data + member.size > most:
            raise tarfile.ReadError(f'it grows to more than {most} bytes')
        yield member.name, member.size if member.isreg() else None, _reader(_tar_content, archive, member)


def _reader(read: Callable[..., bytes], *arguments: Any) -> Callable[[], bytes]:
    return lambda: read(*arguments)


def _tar_content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with archive.extractfile(member) as file:
        return file.read()
