"""Official trees of photographs, generated from tiny pictures."""

import re

import numpy as np
import pytest
import torch
from PIL import Image as pillow
from scipy.io import savemat

from cpic._errors import ImageError
from cpic.images import check_images, load


def picture(path, color=(10, 200, 30), size=(9, 7), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pillow.new("RGB", size, color)
    # Conversion to a palette would dither.
    (image.quantize() if mode == "P" else image.convert(mode)).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def matlab(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content)


def cells(names):
    found = np.empty((len(names), 1), dtype=object)
    found[:, 0] = names
    return found


def imagenet(root):
    for part, n in (("train", 3), ("val", 2)):
        for name in ("n01", "n02"):
            for k in range(n):
                picture(root / part / name / f"{k}.JPEG")


def cub(root):
    root = root / "CUB_200_2011"
    names = ["001.Gull/a.jpg", "001.Gull/b.jpg", "002.Tern/a.jpg", "002.Tern/b.jpg"]
    for name in names:
        picture(root / "images" / name)
    text(root / "images.txt", "".join(f"{k} {name}\n" for k, name in enumerate(names, 1)))
    text(root / "image_class_labels.txt", "1 1\n2 1\n3 2\n4 2\n")
    text(root / "train_test_split.txt", "1 1\n2 0\n3 0\n4 1\n")
    text(root / "classes.txt", "1 001.Gull\n2 002.Tern\n")


def aircraft(root):
    root = root / "fgvc-aircraft-2013b" / "data"
    for k in range(5):
        picture(root / "images" / f"{k:07d}.jpg")
    for kind, names in (("variant", ("A 300 B4", "747-100")), ("family", ("A300", "747"))):
        text(root / f"images_{kind}_trainval.txt", f"0000000 {names[0]}\n0000001 {names[1]}\n")
        rows = "".join(f"{k:07d} {names[k % 2]}\n" for k in (2, 3, 4))
        text(root / f"images_{kind}_test.txt", rows)


def cars(root):
    kinds = [(name, object) for name in ("relative_im_path", "bbox_x1", "class", "test")]
    rows = np.empty((1, 4), dtype=kinds)
    for k in range(4):
        picture(root / "car_ims" / f"{k}.jpg")
        rows[0, k] = (f"car_ims/{k}.jpg", 1, 1 + k % 2, k // 2)
    matlab(root / "cars_annos.mat", annotations=rows)


def dogs(root):
    root = root / "Dogs"
    for part, k in (("train", 0), ("test", 1)):
        names = [f"n1-Pug/{k}", f"n2-Saluki/{k}"]
        for name in names:
            picture(root / "Images" / f"{name}.jpg", size=(20, 10))
            box = "<bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox>"
            boxes = box.format(1, 9) + (box.format(5, 25) if "Pug" in name else "")
            text(root / "Annotation" / name, f"<annotation>{boxes}</annotation>")
        matlab(root / f"{part}_list.mat", annotation_list=cells(names), labels=np.array([[1], [2]]))


def flowers(root):
    for k in range(10):
        picture(root / "jpg" / f"image_{k + 1:05d}.jpg")
    matlab(root / "imagelabels.mat", labels=1 + np.arange(10)[None] % 2)


MAKERS = {
    "imagenet": (imagenet, 6, 4),
    "cub": (cub, 2, 2),
    "aircraft": (aircraft, 2, 3),
    "aircraft-family": (aircraft, 2, 3),
    "cars": (cars, 2, 2),
    "dogs": (dogs, 2, 2),
    "dogs-cropped": (dogs, 3, 3),
    "flowers": (flowers, 9, 1),
}


@pytest.mark.parametrize("name", MAKERS)
def test_official_trees(name, tmp_path):
    make, n_train, n_test = MAKERS[name]
    make(tmp_path)
    parts = [load(name, root=tmp_path, train=train) for train in (True, False)]
    assert [len(part) for part in parts] == [n_train, n_test]
    for part in parts:
        assert len(part.classes) == 2
        assert set(part.labels.tolist()) <= {0, 1}
        assert part.shape == (3, 0, 0)
        pixels = part.read(range(len(part)))
        assert all(one.dtype == torch.uint8 and one.shape[0] == 3 for one in pixels)
        color = torch.tensor([10, 200, 30]).view(3, 1, 1)
        assert all((one.int() - color).abs().max() < 8 for one in pixels)
    assert not set(parts[0].paths) & set(parts[1].paths)
    faults = check_images(name, tmp_path)  # the numbers of pictures are not the published ones
    assert len(faults) == (0 if name == "dogs-cropped" else 1)


def test_what_the_lists_say(tmp_path):
    for make in (cub, aircraft, cars, dogs):
        make(tmp_path)
    birds = load("cub", root=tmp_path)
    assert [path.name for path in birds.paths] == ["a.jpg", "b.jpg"]
    assert birds.labels.tolist() == [0, 1]
    assert birds.classes == ("001.Gull", "002.Tern")
    planes = load("aircraft", root=tmp_path, train=False)
    assert planes.classes == ("747-100", "A 300 B4")
    assert planes.labels.tolist() == [1, 0, 1]
    assert load("cars", root=tmp_path, train=False).labels.tolist() == [0, 1]
    cropped = load("dogs-cropped", root=tmp_path)
    assert [tuple(one.shape) for one in cropped.read(range(3))] == [
        (3, 7, 8),
        (3, 7, 15),  # cut at the edge
        (3, 7, 8),
    ]
    assert load("dogs", root=tmp_path).classes == ("n1-Pug", "n2-Saluki")


def test_flowers_by_their_official_split(tmp_path):
    flowers(tmp_path)
    ids = {"trnid": [[1, 2]], "valid": [[5]], "tstid": [[9, 10]]}
    matlab(tmp_path / "setid.mat", **ids)
    names = [path.name for path in load("flowers", root=tmp_path).paths]
    assert names == [f"image_{k:05d}.jpg" for k in (1, 2, 5)]
    assert len(load("flowers", root=tmp_path, train=False)) == 2


def test_pictures_are_scaled(tmp_path):
    imagenet(tmp_path)
    picture(tmp_path / "train" / "n01" / "0.JPEG", size=(30, 20))
    images = load("imagenet", root=tmp_path)
    assert images.scaled(10).read([0]).shape == (1, 3, 10, 15)
    assert images.scaled((8, 8)).read([0, 1]).shape == (2, 3, 8, 8)
    assert images.scaled((8, 8)).shape == (3, 8, 8)
    assert isinstance(images.read([0, 1]), list)
    assert len(images.subset([4, 0]).paths) == 2


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK", "I;16"])
def test_every_mode_becomes_color(mode, tmp_path):
    imagenet(tmp_path)
    path = tmp_path / "train" / "n01" / ("0.jpg" if mode == "CMYK" else "0.png")
    if mode == "I;16":
        pillow.fromarray(np.full((7, 9), 300 * 256 // 2, np.uint16)).save(path)
    else:
        picture(path, (200, 200, 200), mode=mode)
    shade = 150 if mode == "I;16" else 255 if mode == "1" else 200
    images = load("imagenet", root=tmp_path)
    pixels = images.read([images.paths.index(path)])
    assert pixels.shape == (1, 3, 7, 9)
    if mode != "1":
        assert (pixels.int() - shade).abs().max() <= 5


def broken(tmp_path, name, spoil):
    MAKERS[name][0](tmp_path)
    spoil(tmp_path)
    with pytest.raises(ImageError) as error:
        load(name, root=tmp_path).read([0])
    return str(error.value)


def test_bad_trees(tmp_path):
    cases = {
        "cub one picture missing": lambda r: (r / "CUB_200_2011/images/001.Gull/a.jpg").unlink(),
        "cub other lists": lambda r: text(r / "CUB_200_2011/images.txt", "1 001.Gull/a.jpg\n"),
        "cub no numbers": lambda r: text(r / "CUB_200_2011/classes.txt", "Gull\nTern\n"),
        "cub other labels": lambda r: text(
            r / "CUB_200_2011/image_class_labels.txt", "1 1\n2 1\n3 2\n4 9\n"
        ),
        "cub outside": lambda r: text(
            r / "CUB_200_2011/images.txt", "1 ../../x.jpg\n2 b\n3 c\n4 d\n"
        ),
        "cub empty": lambda r: text(r / "CUB_200_2011/images.txt", ""),
        "aircraft no class": lambda r: text(
            r / "fgvc-aircraft-2013b/data/images_variant_test.txt", "0000002\n"
        ),
        "cars other annotations": lambda r: matlab(r / "cars_annos.mat", labels=np.ones(3)),
        "cars other fields": lambda r: matlab(r / "cars_annos.mat", annotations=np.ones(3)),
        "cars no matlab": lambda r: text(r / "cars_annos.mat", "x" * 400),
        "flowers other annotations": lambda r: matlab(r / "imagelabels.mat", ids=np.ones(3)),
        "dogs-cropped no box": lambda r: text(r / "Dogs/Annotation/n1-Pug/0", "<annotation/>"),
        "dogs-cropped entities": lambda r: text(
            r / "Dogs/Annotation/n1-Pug/0", '<!DOCTYPE a [<!ENTITY b "c">]><a/>'
        ),
        "dogs-cropped no xml": lambda r: text(r / "Dogs/Annotation/n1-Pug/0", "<a"),
        "imagenet damaged": lambda r: text(r / "train/n01/0.JPEG", "no picture"),
    }
    expected = {
        "cub one picture missing": "lacks 1 of 2 pictures.*first images/001.Gull/a.jpg",
        "cub other lists": "lists of different pictures",
        "cub other labels": "has 2 classes, but labels from 1 to 9; its lists are of different",
        "cub no numbers": "needs lines `number text`; it is of another data set",
        "cub outside": "outside of",
        "cub empty": "is empty",
        "aircraft no class": "lines without a class",
        "cars other annotations": "lacks annotations, it has labels; it is of another",
        "cars other fields": "another form than expected",
        "cars no matlab": "another form than expected|cannot be read|not",
        "flowers other annotations": "lacks labels, it has ids",
        "dogs-cropped no box": "has no box",
        "dogs-cropped entities": "declares entities",
        "dogs-cropped no xml": "another form than expected",
        "imagenet damaged": "0.JPEG is not a readable PNG or JPEG",
    }
    assert cases.keys() == expected.keys()
    for k, (name, spoil) in enumerate(cases.items()):
        message = broken(tmp_path / str(k), name.partition(" ")[0], spoil)
        assert re.search(expected[name], message), (name, message)


def test_folders_of_one_class(tmp_path):
    picture(tmp_path / "train" / "only" / "0.png")
    with pytest.raises(ImageError, match=r"at least two classes, got \['only'\]"):
        load("imagenet", root=tmp_path)
    with pytest.raises(ImageError, match="val"):
        load("imagenet", root=tmp_path, train=False)


def test_the_classes_of_both_parts_are_those_of_the_training_part(tmp_path):
    imagenet(tmp_path)
    picture(tmp_path / "train" / "m00" / "0.JPEG")
    parts = [load("imagenet", root=tmp_path, train=train) for train in (True, False)]
    assert parts[0].classes == parts[1].classes == ("m00", "n01", "n02")
    assert parts[1].labels.tolist() == [1, 1, 2, 2]
    picture(tmp_path / "val" / "other" / "0.JPEG")
    with pytest.raises(ImageError, match=r"val has the class 'other', which .*train lacks"):
        load("imagenet", root=tmp_path, train=False)


def test_a_checker_names_what_is_damaged(tmp_path):
    imagenet(tmp_path)
    text(tmp_path / "val" / "n02" / "1.JPEG", "no picture")
    faults = check_images("imagenet", tmp_path)
    assert any("1.JPEG" in fault for fault in faults)
    assert any("published are (1000, 1281167, 50000)" in fault for fault in faults)
    with pytest.raises(ImageError, match="check_images knows"):
        check_images("digits", tmp_path)
    assert check_images("cars", tmp_path / "nowhere")
