"""Traffic signs: annotations with their irregularities, classes, splits, patches, colors."""

import colorsys
import hashlib

import numpy as np
import pytest
import torch
from PIL import Image as pillow

from cpic._errors import ImageError
from cpic.images import (
    Sign,
    check_traffic,
    color_jitter,
    label_of,
    normalized,
    read_signs,
    read_traffic,
    recolor,
)
from cpic.images import _traffic as traffic

LINES = """\
a.jpg:VISIBLE, 1279.0, 600.5, 1200.25, 500.0, PROHIBITORY, 70_SIGN;
b.jpg:
c.jpg:MISC_SIGNS;
d.jpg:BLURRED, 20, 20, 0, 0, PROHIBITORY, 50_SIGN;VISIBLE, 9.0e, 9.5.3, 1x, 2, PROHIBITORY, 80_SIGN;
e.jpg:VISIBLE, 9, 9, 1, 1, WARNING, OTHER;

f.jpg: OCCLUDED, 9, 9, 1, 1, PROHIBITORY, 50_SIGN; MISC_SIGNS;
g.jpg:VISIBLE, 9, 9, 1, 1, PROHIBITORY, 50_SIGN; VISIBLE, 19, 19, 1, 1, PROHIBITORY, 70_SIGN;
"""


def tree(root, lines=LINES, names="abcdefg", size=(40, 30)):
    for number in (1, 2):
        folder = root / f"Set{number}"
        folder.mkdir(parents=True)
        (folder / "annotations.txt").write_text(lines)
        for k, name in enumerate(names):
            pixels = np.full((*size, 3), 20 * number + k, np.uint8)
            pillow.fromarray(pixels).save(folder / f"{name}.jpg", quality=100)
    return root


def test_lines_are_parsed_and_rubbish_after_numbers_is_cut(tmp_path):
    found = read_signs(tree(tmp_path) / "Set1" / "annotations.txt")
    assert list(found) == [f"{name}.jpg" for name in "abcdefg"]
    assert found["a.jpg"] == [Sign("70_SIGN", "VISIBLE", (500.0, 1200.25, 600.5, 1279.0))]
    assert found["b.jpg"] == found["c.jpg"] == []
    assert found["d.jpg"][1].box == (2.0, 1.0, 9.5, 9.0)


def test_classes_are_those_of_the_best_visible_limit(tmp_path):
    signs = read_traffic(tree(tmp_path))
    assert [path.name for path in signs.paths] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "g.jpg"]
    assert signs.labels == (2, 0, 0, 3, 2)
    hidden = Sign("50_SIGN", "SIDE_ROAD", (0, 0, 50, 50))
    assert label_of([hidden]) is None
    assert label_of([hidden, Sign("80_SIGN", "VISIBLE", (0, 0, 1, 1))]) == 3


@pytest.mark.parametrize(
    ("train", "seed", "number"), [(True, 0, 1), (False, 0, 2), (True, 1, 2), (False, 3, 1)]
)
def test_sets_are_exchanged_by_an_odd_seed(tmp_path, train, seed, number):
    paths = read_traffic(tree(tmp_path), train=train, seed=seed).paths
    assert {path.parent.name for path in paths} == {f"Set{number}"}


def test_patches_are_of_the_scaled_and_shifted_photograph(tmp_path):
    signs = read_traffic(tree(tmp_path), size=(120, 160))
    source = signs.source(0, patch=40)
    assert len(source) == 12
    found = source.read(torch.arange(12))
    assert found.unique().tolist() == [20]
    moved = signs.source(0, patch=40, shift=(10, -20)).read(torch.arange(12))
    assert not moved[:4, :, :10].any()
    assert not moved[3::4, :, :, 20:].any()
    assert (moved[5] == 20).all()
    assert len(read_traffic(tmp_path).source(0)) == 192


BAD = {
    "x.jpg:VISIBLE, 9, 9, 1, PROHIBITORY, 50_SIGN;": r"line 1 needs 'visibility, xmax",
    "x.jpg:VISIBLE, 9, 9, 1, e5, PROHIBITORY, 50_SIGN;": r"line 1 needs 'visibility, xmax",
    "x.jpg:SEEN, 9, 9, 1, 1, PROHIBITORY, 50_SIGN;": r"line 1 needs 'visibility, xmax",
    "no colon": "line 1 needs the name of a file before a colon",
    "../x.jpg:": "line 1 needs the name of a file before a colon",
    "\n": "has no line",
    "z.jpg:": r"lacks 1 of 1 photographs, first .*z.jpg",
    "e.jpg:VISIBLE, 9, 9, 1, 1, WARNING, OTHER;": "lacks 0 of 0 photographs",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_annotations_are_one_sentence(tmp_path, line):
    with pytest.raises(ImageError, match=BAD[line]):
        read_traffic(tree(tmp_path, lines=line))


def test_the_check_names_every_fault(tmp_path, monkeypatch):
    tree(tmp_path)
    marks = hashlib.md5(LINES.encode()).hexdigest()
    monkeypatch.setattr(traffic, "_MD5", {1: marks, 2: marks})
    assert check_traffic(tmp_path) == ()
    (tmp_path / "Set1" / "a.jpg").write_bytes((tmp_path / "Set1" / "a.jpg").read_bytes()[:400])
    pillow.new("L", (9, 9)).save(tmp_path / "Set1" / "d.jpg")
    (tmp_path / "Set2" / "b.jpg").unlink()
    with (tmp_path / "Set1" / "annotations.txt").open("a") as file:
        file.write("\n")
    faults = check_traffic(tmp_path)
    expected = ["not the published one", "a.jpg", "d.jpg is not a color photograph", "lacks 1 of 5"]
    assert len(faults) == 4
    assert all(part in fault for part, fault in zip(expected, faults, strict=True))


def test_colors_change_by_the_factors_drawn():
    patches = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(3)) * 0.4 + 0.3
    draw = lambda **options: color_jitter(50, **options, generator=torch.Generator().manual_seed(0))  # noqa: E731
    torch.testing.assert_close(recolor(patches, draw()), patches)
    light = recolor(patches, draw(brightness=0.3)) / patches
    assert light.std((1, 2, 3)).max() < 1e-5
    assert 0.7 <= light.min() < 0.75 < 1.25 < light.max() <= 1.3
    span = (recolor(patches, draw(contrast=0.3)) - 0.5) / (patches - 0.5)
    assert 0.7 - 1e-3 <= span[:, 0, 0, 0].min() < span[:, 0, 0, 0].max() <= 1.3 + 1e-3
    luma = torch.tensor([0.299, 0.587, 0.114])
    for options in ({"saturation": 0.2}, {"hue": 0.05}):
        turned = recolor(patches, draw(**options))
        assert (turned - patches).abs().max() > 0.01
        both = [torch.einsum("nchw,c->nhw", x, luma) for x in (turned, patches)]
        torch.testing.assert_close(*both, atol=2e-4, rtol=0)
    red = recolor(torch.tensor([0.7, 0.4, 0.4])[None, :, None, None], draw(hue=0.2)[:1])[0, :, 0, 0]
    assert colorsys.rgb_to_hsv(*red.tolist())[0] != pytest.approx(0, abs=0.02)
    with pytest.raises(ImageError, match="a hue of at most"):
        draw(hue=0.7)


def test_pixels_of_all_types_are_normalized_alike():
    values = torch.rand(2, 4, 3, 3)
    found = normalized(values)
    assert found.shape == (2, 3, 3, 3)
    torch.testing.assert_close(normalized((values * 255).round().byte()), found, atol=0.02, rtol=0)
    torch.testing.assert_close(normalized((values * 65535).round().int()), found, atol=1e-3, rtol=0)
    with pytest.raises(ImageError, match="normalized needs patches"):
        normalized(torch.rand(2, 1, 3, 3))
