"""W_O of one attention module, split by query head."""

from __future__ import annotations

from torch import Tensor, nn

from ..core.errors import UnsupportedModelError

_NAMES = ("o_proj", "out_proj", "c_proj", "dense", "wo", "out_lin", "output.dense", "o")
_NORMS = ("attn_sub_norm", "sub_norm", "g_norm", "attn_norm_out")


def split_projection(model: nn.Module, attention: nn.Module, n_heads: int, value_dim: int, d_model: int) -> Tensor:
    """Return the output projection as `[H, Dv, M]`: head h writes z_h @ W_O[h] (times the gate, where one follows).

    Raises:
        UnsupportedModelError: it is not found, quantised, adapted, offloaded, or a norm mixes the heads before it.
    """
    linear = find_projection(model, attention, n_heads * value_dim, d_model)
    weight: Tensor = linear.weight  # type: ignore[assignment]
    if weight.device.type == "meta":
        _fail(attention, "weights that are offloaded", "weights in memory")
    if isinstance(linear, nn.Linear):
        weight = weight.T
    return weight.detach().unflatten(0, (n_heads, value_dim))


def find_projection(model: nn.Module, attention: nn.Module, width: int, d_model: int) -> nn.Module:
    """Return the module (Linear, or GPT-2's Conv1D with its transposed weight) that projects heads to the stream.

    Raises:
        UnsupportedModelError: as in `split_projection`.
    """
    names = {module: name for name, module in model.named_modules()}
    parent = model.get_submodule(names[attention].rpartition(".")[0])
    for norm in _NORMS:
        if hasattr(attention, norm):
            _fail(attention, f"a norm over all heads before the projection ({norm})", "a projection straight after z")
    for root in (attention, parent):
        for name in _NAMES:
            module = _child(root, name)
            if module is None or isinstance(module, nn.ModuleList):
                continue
            found = _shape(module)
            if found == (width, d_model):
                return module
            if found is None and name != "o":
                _fail(attention, f"{name} is a {type(module).__name__}", "a plain Linear or Conv1D, not quantised")
    _fail(attention, "no output projection under a known name", f"a Linear of {width} to {d_model} features")
    raise AssertionError  # unreachable: _fail raises


def _child(root: nn.Module, name: str) -> nn.Module | None:
    module: nn.Module | None = root
    for part in name.split("."):
        module = getattr(module, part, None)
    return module if isinstance(module, nn.Module) else None


def _shape(module: nn.Module) -> tuple[int, int] | None:
    """Return (features in, features out) of a plain projection, or None."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.is_floating_point():
        return None
    if isinstance(module, nn.Linear):
        return weight.shape[1], weight.shape[0]
    if type(module).__name__ == "Conv1D":
        return weight.shape[0], weight.shape[1]
    return None


def _fail(attention: nn.Module, found: str, expected: str) -> None:
    raise UnsupportedModelError(
        f"output projection of {type(attention).__name__}",
        found=found,
        expected=expected,
        fix="Statistics of attention itself do not need it; measures of what a head writes do.",
    )
