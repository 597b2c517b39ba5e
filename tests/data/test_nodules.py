"""The shapes that come with the package are those of the file its manifest names."""

import hashlib
import json
from importlib.resources import files

import pytest
import torch

from cpic import data

FOLDER = files("cpic.data") / "samples"


def test_the_file_is_the_one_of_the_manifest():
    manifest = json.loads((FOLDER / "nodules.json").read_text(encoding="utf-8"))
    content = (FOLDER / manifest["file"]).read_bytes()
    assert len(content) == manifest["bytes"] < 400_000
    assert hashlib.sha256(content).hexdigest() == manifest["sha256"]
    assert data.nodules().manifest == manifest


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("license", "CC BY 3.0"),
        ("license_url", "https://creativecommons.org/licenses/by/3.0/"),
        ("license_text", "give credit"),
        ("attribution", "LIDC-IDRI"),
        ("changes", "resampled"),
    ],
)
def test_the_license_and_who_is_to_be_named(key, words):
    assert words in data.nodules().manifest[key]


def test_shapes_and_ratings_have_golden_values():
    found = data.nodules()
    assert found.masks.shape == (610, 32, 32, 32)
    assert found.masks.dtype == torch.bool
    assert found.names == (
        *("subtlety", "sphericity", "margin", "lobulation", "spiculation", "texture"),
        "malignancy",
    )
    assert int(found.masks.sum()) == 597_761
    assert [int(found.masks[k].sum()) for k in (0, 609)] == [6_354, 176]
    torch.testing.assert_close(
        found.diameters.quantile(torch.tensor([0, 0.5, 1])),
        torch.tensor([3.6756, 8.7227, 27.4298]),
        rtol=0,
        atol=1e-3,
    )
    torch.testing.assert_close(
        found.ratings[0], torch.tensor([5.0, 3.75, 3.25, 3.0, 4.25, 4.75, 4.75])
    )


def test_ratings_are_means_over_those_who_rated():
    found = data.nodules()
    rated = found.readers > 0
    assert rated.sum(1).unique().tolist() == [3, 4]
    assert (rated == rated[..., :1]).all()  # all seven, or none
    assert found.readers.max() == 5
    for k in (0, 17, 609):
        each = found.readers[k][rated[k, :, 0]].double()
        torch.testing.assert_close(found.ratings[k].double(), each.mean(0), rtol=0, atol=1e-6)
    assert ((found.ratings >= 1) & (found.ratings <= 5)).all()


def test_shapes_lie_in_the_middle_and_malignant_ones_are_larger():
    found = data.nodules()
    axis = torch.arange(32.0)
    for spare in (1, 2, 3):
        other = [a for a in (1, 2, 3) if a != spare]
        inside = found.masks.any(other[1]).any(other[0])
        low = inside.float().argmax(1)
        high = (inside * axis).argmax(1)
        assert ((low + high - 31).abs() <= 4).all()  # twice the distance from the middle
    both = torch.stack([found.diameters.log(), found.ratings[:, -1]])
    assert 0.4 < torch.corrcoef(both)[0, 1] < 0.8
