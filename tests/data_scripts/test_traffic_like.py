"""Synthetic traffic signs have the format of the published ones."""

import make_traffic_like
import torch

from cpic.images import check_traffic, read_signs, read_traffic


def test_what_is_made_passes_the_check_but_is_said_not_to_be_published(tmp_path):
    make_traffic_like.main(str(tmp_path), n=12, height=240, width=320)
    faults = check_traffic(tmp_path)
    assert len(faults) == 2
    assert all("is not the published one" in fault for fault in faults)
    sets = [read_traffic(tmp_path, train=train) for train in (True, False)]
    assert {label for signs in sets for label in signs.labels} == {0, 1, 2, 3}
    assert any(len(signs) < 12 for signs in sets)  # those with hidden or other signs are left out
    before = (tmp_path / "Set1" / "annotations.txt").read_bytes()
    make_traffic_like.main(str(tmp_path), n=12, height=240, width=320)
    assert (tmp_path / "Set1" / "annotations.txt").read_bytes() == before


def test_a_sign_is_where_its_box_says(tmp_path):
    make_traffic_like.main(str(tmp_path), n=12, height=240, width=320)
    signs = read_traffic(tmp_path, size=(240, 320))
    boxes = read_signs(tmp_path / "Set1" / "annotations.txt")
    limits = [(k, boxes[path.name][0].box) for k, path in enumerate(signs.paths) if signs.labels[k]]
    assert limits
    for k, (top, left, bottom, right) in limits:
        source = signs.source(k, patch=int(bottom - top))
        corner = torch.tensor([[int(top), int(left)]])
        pixels = source.image.read(corner, size=source.size)[0].float()
        edge = int(right - left)
        ring = pixels[:, edge // 2, edge // 16]
        center = pixels[:, edge // 5, edge // 2]
        assert ring[0] > ring[1] + 60  # red
        assert center[0] > center[2] + 60  # yellow


def test_a_classifier_of_what_is_made_is_trained_stopped_and_resumed(tmp_path, stopped):
    make_traffic_like.main(str(tmp_path / "data"), n=10, height=240, width=320)
    words = ["ips", "--dataset", "traffic", f"--root={tmp_path / 'data'}", "--encoder", "conv"]
    words += ["--width", "8", "--heads", "2", "--m", "2", "--i", "20", "--patch", "50"]
    words += ["--stride", "200", "--selection", "0.3", "--batch_size", "2", "--num_epochs", "2"]
    facts = stopped(words, at=4)
    assert facts["patches"] == 6 * 8
    signs = read_traffic(tmp_path / "data", train=False)
    assert facts["images"]["test"] == len(signs)
    # Of the commonest class of the training part, which the labels of the test part decide.
    shares = torch.tensor(signs.labels).bincount() / len(signs)
    assert any(abs(facts["mean"]["sign_chance"] - share) < 1e-9 for share in shares.tolist())
    assert 0 <= facts["mean"]["sign_accuracy"] <= 1
