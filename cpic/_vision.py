"""Import torchvision, whose compiled operators may not fit the installed torch."""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

# Operators for object detection, unused here, that torchvision describes when it is imported.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def torchvision() -> ModuleType:
    """The package torchvision, for its networks, transforms and data sets.

    Raises:
        ImportError: If it is not installed; the message has the remedy.
    """
    declare_operators()
    try:
        import torchvision
    except ImportError as error:
        raise ImportError('torchvision is missing; run `pip install "cpic[train]"`.') from error
    return torchvision


@functools.cache
def declare_operators() -> object:
    """Let torchvision, and Lightning that imports it, be imported without its compiled operators.

    A torchvision built for CUDA beside a torch for the CPU, or the reverse, cannot load its
    extension, and any import of it ends in "operator torchvision::nms does not exist". What is used
    here is plain Python; so the two operators in question are declared, without a kernel.

    Returns:
        The library of declarations, which are dropped with it; None if none are needed.
    """
    import torch

    found = importlib.util.find_spec("torchvision")
    extension = Path(found.origin).parent / "_C.so" if found and found.origin else None
    if extension is None or not extension.exists():
        return None
    try:
        torch.ops.load_library(str(extension))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in _OPERATORS:
            library.define(operator)
        return library
    return None
