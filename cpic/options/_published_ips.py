"""Options of the published files of iterative patch selection, by their published names.

References: {cite}`bergner2023iterative`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

DROPPED = {
    "n_class": "follows from the data set",
    "n_token": "is the number of tasks",
    "N": "follows from the sizes of image and patch",
    "eps": "losses are computed from logits",
    "pin_memory": "patches are moved in chunks",
}
_PLAIN = {
    "n_epoch": "num_epochs",
    "n_epoch_warmup": "warmup",
    "B": "batch_size",
    "B_seq": "together",
    "wd": "weight_decay",
    "data_dir": "root",
    "train_fname": "train_file",
    "test_fname": "test_file",
    "n_worker": "num_workers",
    "n_chan_in": "in_channels",
    "n_res_blocks": "stages",
    "M": "m",
    "I": "i",
    "H": "heads",
    "D": "width",
    "D_k": "key_width",
    "D_v": "value_width",
    "D_inner": "inner",
    "attn_dropout": "attention_dropout",
}
_EDGES = {"patch_size": "patch", "patch_stride": "stride"}
# Options here as well, with other values.
SHARED = {"shuffle", "tasks"}
KEYS = {*DROPPED, *_PLAIN, *_EDGES, *SHARED, "is_image", "enc_type", "use_pos", "shuffle_style"}


def converted(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Options by flat name from published keys.

    Args:
        keys: Values by published name, all files merged.

    Raises:
        ValueError: If a value has another form than the published ones.

    Example:
        >>> converted({"M": 10, "patch_size": [50, 50], "is_image": False, "enc_type": "resnet50"})
        {'m': 10, 'patch': 50, 'encoder': 'projector'}
    """
    found = {_PLAIN[name]: value for name, value in keys.items() if name in _PLAIN}
    found |= {_EDGES[name]: _edge(name, keys[name]) for name in _EDGES if name in keys}
    if not keys.get("is_image", True):
        found["encoder"] = "projector"
    elif "enc_type" in keys:
        found["encoder"] = keys["enc_type"]
    if "use_pos" in keys:
        found["places"] = "index" if keys["use_pos"] else "none"
    shuffle = keys.get("shuffle", True)
    if shuffle is not True:
        found["shuffle"] = shuffle or "none"
    elif "shuffle_style" in keys:
        found["shuffle"] = keys["shuffle_style"]
    if "tasks" in keys:
        found["tasks"] = _names(keys["tasks"])
    return found


def _edge(name: str, value: Any) -> Any:
    """The edge of a square, given once or twice."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    if len(value) != 2 or value[0] != value[1]:
        raise ValueError(f"{name} needs two equal numbers: patches are squares; got {value}.")
    return value[0]


def _names(tasks: Any) -> Any:
    """Names of tasks by their number; activation and metric follow from the data set."""
    if not isinstance(tasks, Mapping):
        return tasks
    parts = list(tasks.values())
    if not all(isinstance(part, Mapping) and "name" in part for part in parts):
        raise ValueError(f"tasks needs a name for each task, got {tasks}.")
    return [part["name"] for part in sorted(parts, key=lambda part: part.get("id", 0))]
