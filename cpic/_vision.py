"""Import torchvision for its networks, transforms and data sets."""

import sys
from types import ModuleType

import torch

# Operators for object detection, unused here, that torchvision describes when it is imported.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []


def torchvision() -> ModuleType:
    """The package torchvision, also if its compiled operators do not fit this torch.

    A build for CUDA beside a torch for the CPU, or the reverse, cannot load its extension, and the
    import ends in "operator torchvision::nms does not exist". What is used here is plain Python,
    so the two operators are declared, without a kernel, and the import is repeated.

    Raises:
        ImportError: If torchvision is not installed; the message has the remedy.
    """
    try:
        import torchvision
    except ImportError as error:
        raise ImportError('it needs torchvision; run `pip install "cpic[train]"`.') from error
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or _declared:
            raise
        _declared.append(torch.library.Library("torchvision", "DEF"))
        for operator in _OPERATORS:
            _declared[0].define(operator)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision
    return torchvision
