"""Compute the weights of a whole network once for several uses."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from cpic.nn.spectral._weight import SpectralWeight, fill


@contextmanager
def cached(net: nn.Module) -> Iterator[None]:
    """Compute all weights of a network once, for all that happens inside a `with` block.

    All frames of one size are made in one call. A forward pass of a network that was given to
    `parametrize` does so by itself; use this where it is called several times before one backward
    pass, or where only parts of it are called. Weights of layers whose numbers change inside the
    block are computed again.

    All passes inside share one graph: call `backward` once, on the sum of the losses.

    Args:
        net: A network with parametrized layers.

    Example:
        >>> from cpic.nn.spectral import parametrize
        >>> net = torch.nn.Linear(8, 8)
        >>> _ = parametrize(net, rank=2)
        >>> with cached(net):
        ...     loss = net(torch.ones(1, 8)).sum() - net(torch.zeros(1, 8)).sum()
        >>> loss.backward()
    """
    filled = fill(net)
    try:
        yield
    finally:
        forget(filled)


def forget(filled: list[SpectralWeight]) -> None:
    """Drop weights with a graph, which belongs to what was called so far."""
    for own in filled:
        own.keep(None)


def install(net: nn.Module) -> None:
    """Make each forward pass of a network compute its weights at once."""
    if not any(hook is _enter for hook in net._forward_pre_hooks.values()):
        net.register_forward_pre_hook(_enter)
        net.register_forward_hook(_leave, always_call=True)


def uninstall(net: nn.Module) -> None:
    """Undo `install`."""
    for hooks, own in ((net._forward_pre_hooks, _enter), (net._forward_hooks, _leave)):
        for key in [key for key, hook in hooks.items() if hook is own]:
            del hooks[key]
            net._forward_hooks_always_called.pop(key, None)


# A stack, as a module may be called inside its own call; a tuple, since replicas of a module share
# the objects in its attributes.
_STACK = "_spectral_filled"


def _enter(net: nn.Module, _) -> None:
    net.__dict__[_STACK] = (fill(net), net.__dict__.get(_STACK))


def _leave(net: nn.Module, *_) -> None:
    filled, net.__dict__[_STACK] = net.__dict__.get(_STACK) or ([], None)
    forget(filled)
