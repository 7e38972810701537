"""A second module tree over the same weights, with some modules of its own: how one stream gets a tower with memory."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping

from torch import nn


def grafted(module: nn.Module, parts: Mapping[str, nn.Module], prefix: str = "") -> nn.Module:
    """A shallow copy of `module` in which the modules at the dotted paths in `parts` are others.

    Only modules on the way to a part are copied, everything else is shared, and the original is left as it is: other
    streams go on using it meanwhile.
    """
    own = copy.copy(module)
    own.__dict__["_modules"] = dict(module._modules)
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):  # or a hook on the copy would be one on the original
        own.__dict__[hooks] = OrderedDict(module.__dict__[hooks])
    for name, child in module._modules.items():
        path = f"{prefix}{name}"
        if path in parts:
            own._modules[name] = parts[path]
        elif child is not None and any(part.startswith(f"{path}.") for part in parts):
            own._modules[name] = grafted(child, parts, f"{path}.")
    return own
