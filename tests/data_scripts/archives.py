"""Archives to unpack, the same on every day, and what is left of a refused one."""

import gzip
import io
import stat
import tarfile
import zipfile

import pytest
from _archive import ArchiveError, extract

FILES = {"set/a.txt": b"alpha", "set/deep/b.bin": bytes(range(256)) * 300, "c": b""}


def make_zip(path, files, *, modes=None, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, 0o644 | stat.S_IFREG) << 16
            info.compress_type = compression
            packed.writestr(info, content)
    return path


def make_tar(path, files, *, kinds=None):
    box = io.BytesIO()
    with tarfile.open(fileobj=box, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.type = (kinds or {}).get(name, tarfile.REGTYPE)
            if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = "/etc/passwd"
                tar.addfile(info)
                continue
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    path.write_bytes(gzip.compress(box.getvalue(), mtime=0))
    return path


def found(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refuses(archive, match):
    """Refused, and neither beside nor inside the target is anything left."""
    box = archive.parent / "box"
    with pytest.raises(ArchiveError, match=match) as caught:
        extract(archive, box / "out", progress=False)
    assert "\n" not in str(caught.value)
    assert {p.name for p in archive.parent.rglob("*")} <= {archive.name, "box", ".out.lock"}
    return str(caught.value)
