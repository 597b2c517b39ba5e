r"""Apply a layer by its factors, where that takes fewer multiplications than its weight.

With W = A B, of `(d_out, r)` and `(r, d_in)`, n positions take n r (d_in + d_out) multiplications
by the factors, and n d_in d_out by the weight, after r d_in d_out for forming it. A convolution is
one with r channels, then one of a single position. Backward passes take twice as many of each.

References: {cite}`obukhov2021spectral`.
"""

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from cpic.nn.spectral._plan import Plan
from cpic.nn.spectral._weight import Computed, parts_of, weight_of

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
# Two operations and what is between them cost more than their multiplications.
_MARGIN = 0.8


class Products(NamedTuple):
    """Multiplications of a forward pass: by the weight, by the factors, and to form the weight."""

    formed: int
    direct: int
    forming: int

    @property
    def by_factors(self) -> bool:
        """Whether the factors are cheaper, if the weight is not there yet."""
        return self.direct < _MARGIN * (self.formed + self.forming)


def count_products(plan: Plan, inputs: int, outputs: int) -> Products:
    """Multiplications at some positions.

    Args:
        plan: How the weight is made.
        inputs: Positions in all samples before the layer, where a transposed weight is used.
        outputs: Positions after the layer, where other weights are used.
    """
    rows, columns = plan.shape.widths
    used = inputs if plan.shape.transposed else outputs
    groups, rank = plan.shape.groups, plan.rank
    return Products(
        formed=groups * used * rows * columns,
        direct=groups * rank * (used * columns + outputs * rows),
        forming=groups * rank * rows * columns,
    )


def apply_directly(layer: nn.Module) -> None:
    """Let the class of a parametrized layer, which is its own, choose how it is applied."""
    type(layer).forward = _forward  # type: ignore[method-assign]


def _forward(self: nn.Module, inputs: Tensor, *args, **options) -> Tensor:
    plain = parametrize.type_before_parametrizations(self).forward
    own = weight_of(self)
    if own is None or own.how == "formed" or not _fits(self, inputs):
        return plain(self, inputs, *args, **options)
    found = own.computed(parts_of(self))
    if own.how == "auto":
        products = count_products(own.plan, *_positions(self, inputs))
        has_weight = found.group.has("weight")
        if not products._replace(forming=0 if has_weight else products.forming).by_factors:
            return plain(self, inputs, *args, **options)
    return _apply(self, found, inputs, *args, **options)


def _fits(layer: nn.Module, inputs: Tensor) -> bool:
    """Whether factors may stand for the weight: on samples, where no rule looks at its rows."""
    if len(layer.parametrizations["weight"]) > 1:  # type: ignore[index,arg-type]
        return False
    if isinstance(layer, nn.Embedding):
        return layer.padding_idx is None and not layer.scale_grad_by_freq
    return isinstance(layer, nn.Linear) or inputs.ndim == len(layer.kernel_size) + 2  # type: ignore[arg-type]


def _positions(layer: nn.Module, inputs: Tensor) -> tuple[int, int]:
    """Positions in all samples before and after a layer."""
    if isinstance(layer, nn.Embedding):
        return inputs.numel(), inputs.numel()
    if isinstance(layer, nn.Linear):
        count = math.prod(inputs.shape[:-1])
        return count, count
    assert isinstance(layer, _ConvNd)
    before = inputs.shape[2:]
    sides = layer._reversed_padding_repeated_twice[::-1]
    pads = [a + b for a, b in zip(sides[::2], sides[1::2], strict=True)]
    reach = [apart * (k - 1) for k, apart in zip(layer.kernel_size, layer.dilation, strict=True)]
    axes = zip(before, layer.stride, pads, reach, strict=True)
    if layer.transposed:
        after = [(n - 1) * step - pad + far + 1 for n, step, pad, far in axes]
    else:
        after = [(n + pad - far - 1) // step + 1 for n, step, pad, far in axes]
    return len(inputs) * math.prod(before), len(inputs) * math.prod(after)


def _apply(layer: nn.Module, found: Computed, inputs: Tensor, *args, **options) -> Tensor:
    """The layer by its factors: `inner` `(g, r, d_in)`, then `outer` `(g, d_out, r)`."""
    inner, outer = found.product("inner"), found.product("outer")
    if isinstance(layer, nn.Embedding):
        return functional.linear(functional.embedding(inputs, outer[0]), inner[0].mT)
    if isinstance(layer, nn.Linear):
        return functional.linear(functional.linear(inputs, inner[0]), outer[0], layer.bias)
    assert isinstance(layer, _ConvNd)
    n_axes = len(layer.kernel_size)
    kernels = inner.unflatten(-1, found.group.plan.shape.matrix[1:])
    if layer.transposed:
        hidden = _transposed(layer, kernels.transpose(1, 2).flatten(0, 1), inputs, *args, **options)
    else:
        hidden = layer._conv_forward(inputs, kernels.flatten(0, 1), None)  # type: ignore[operator]
    last = outer.flatten(0, 1).unflatten(-1, (-1, *[1] * n_axes))
    return _CONV[n_axes](hidden, last, layer.bias, groups=layer.groups)


def _transposed(layer: _ConvNd, kernel: Tensor, inputs: Tensor, output_size=None) -> Tensor:
    geometry = (layer.stride, layer.padding, layer.kernel_size)
    n_axes = len(layer.kernel_size)
    extra = layer._output_padding(inputs, output_size, *geometry, n_axes, layer.dilation)  # type: ignore[operator]
    return _TRANSPOSED[n_axes](
        inputs,
        kernel,
        None,
        layer.stride,
        layer.padding,
        extra,
        layer.groups,
        layer.dilation,  # type: ignore[arg-type]
    )
