"""Keep the code of a run beside its checkpoints, so that it is not resumed by another one."""

import io
import zipfile
from pathlib import Path

import cpic
from cpic._files import replace_file
from cpic._trust import open_regular
from cpic.train.loop._distributed import rank_and_size

# The date of all members: the same code gives the same file.
_DATE = (1980, 1, 1, 0, 0, 0)
_LARGEST = 2**24


def keep_code(folder: Path) -> None:
    """Write `source.zip` with all Python files of the package, or compare them with it.

    Files that are new since do not matter.

    Args:
        folder: Folder of the run.

    Raises:
        ValueError: If a file differs or is missing, or the archive cannot be read.
    """
    path, root = folder / "source.zip", Path(cpic.__file__).parent
    now = {one.relative_to(root.parent).as_posix(): one for one in sorted(root.rglob("*.py"))}
    if path.exists():
        advice = f"use that version, or remove {path} to go on with this one"
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    small = archive.getinfo(name).file_size <= _LARGEST
                    if name in now and small and archive.read(name) == _read(now[name]):
                        continue
                    what = f"{name} differs" if name in now else f"there is no {name}"
                    raise ValueError(f"{folder} was begun by other code: {what}; {advice}.")
        except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"{path} cannot be read ({error}); {advice}.") from error
    elif rank_and_size()[0] == 0:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, one in now.items():
                archive.writestr(zipfile.ZipInfo(name, _DATE), _read(one), zipfile.ZIP_DEFLATED)
        replace_file(path, lambda file: file.write(content.getvalue()))


def _read(path: Path) -> bytes:
    """A file with the line ends of every system."""
    return path.read_bytes().replace(b"\r\n", b"\n")
