"""The transformers backend: any model whose attention goes through transformers' attention interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from attnscope_kernels.contract import Tap

from ..core.batch import Batch
from ..core.errors import TapError, UnsupportedModelError
from ._base import BLOCK_SITES, ResidualTap, Site
from ._describe import describe
from ._inputs import batch_inputs, body_of
from ._layout import find_layout
from ._parts import Parts, find_parts
from ._probe import input_device, probe, switched
from ._projection import split_projection
from ._refusals import refuse_by_name, refuse_own_attention
from ._residual import residual_hooks
from ._session import Session, sessions
from ._skip import returns_tuple, skipped
from ._values import Values, find_values, value_weight


def load(model: Any = None, **options: Any) -> HFScope:
    """Load a transformers model, or wrap one that is loaded; options as in `attnscope.load`.

    Example:
        >>> load("Qwen/Qwen3-0.6B", dtype="bfloat16", device="cuda").info.n_heads  # doctest: +SKIP
        16
    """
    from ._pretrained import load_pretrained

    loaded = load_pretrained(model, **options)
    return HFScope(
        loaded.model,
        loaded.tokenizer,
        model_id=loaded.model_id,
        revision=loaded.revision,
        weights_seed=loaded.weights_seed,
    )


class HFScope:
    """A transformers model behind one tap (see `Scope`); the model itself is left as it is.

    Gradients follow the caller's mode: weights that attnscope loaded do not require them. `weights_seed` says that the
    weights are random, drawn from this seed.

    Raises:
        UnsupportedModelError: the model's attention cannot be tapped or expressed; the message says why.

    Example:
        >>> scope = HFScope(model, tokenizer)  # doctest: +SKIP
        >>> with scope.attach(lambda call: attend(call).output):  # doctest: +SKIP
        ...     scope.run(batch)
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        model_id: str = "",
        revision: str | None = None,
        weights_seed: int | None = None,
    ) -> None:
        refuse_by_name(getattr(model, "config", None))
        refuse_own_attention(model)
        calls = probe(model)
        self._layout = find_layout(model, calls)
        self._value_dim = {self._layout.attention[module]: call.v.shape[3] for module, call in calls.items()}
        self._attached = False
        self.model, self.tokenizer = model, tokenizer
        self.info = describe(
            model, tokenizer, self._layout, calls, model_id=model_id, revision=revision, weights_seed=weights_seed
        )

    @property
    def device(self) -> torch.device:
        """Device of the input ids."""
        return input_device(self.model)

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The blocks of the text decoder, in order."""
        return tuple(self._layout.blocks)

    @cached_property
    def parts(self) -> Parts:
        """The modules that write to and read from the residual stream, found by one forward on first use."""
        return find_parts(self.model, self._layout, self.info.d_model)

    @cached_property
    def _in_tuple(self) -> bool:
        return returns_tuple(self.model, self._layout)

    @contextmanager
    def attach(
        self,
        tap: Tap | None = None,
        residual: ResidualTap | None = None,
        sites: Sequence[Site] = BLOCK_SITES,
        *,
        first_block: int = 0,
    ) -> Iterator[None]:
        """Send attention calls through `tap` and the residual stream at `sites` through `residual`.

        Works for `run`, `logits` and for your own calls of `scope.model(...)` and `scope.model.generate(...)`, with
        or without a key/value cache. Blocks before `first_block` hand on their input: whoever skips them gives that
        block its input through `residual`.

        Raises:
            TapError: something is attached already; or a forward inside did not call the tap exactly once a layer.
            UnsupportedModelError: the model has no such site.
        """
        layout = self._layout
        if self._attached or any(module in sessions for module in layout.attention):
            raise TapError(
                f"model {self.info.model_id}",
                found="a tap that is attached already",
                expected="one at a time",
                fix="Leave the first `with scope.attach(...)` before entering another.",
            )
        with ExitStack() as stack:
            self._attached = True
            stack.callback(setattr, self, "_attached", False)
            if first_block:
                stack.enter_context(skipped(layout.blocks[:first_block], self._in_tuple))
            if residual is not None:
                stack.enter_context(
                    residual_hooks(layout.blocks, self.info.d_model, residual, sites, lambda: self.parts)
                )
            if tap is not None:
                running = {module: layer for module, layer in layout.attention.items() if layer >= first_block}
                self._listen(stack, Session(tap, running, self.info.model_id))
            yield

    def _listen(self, stack: ExitStack, session: Session) -> None:
        decoder = self._layout.decoder
        for module in session.layers:
            sessions[module] = session
            stack.callback(sessions.pop, module, None)
        handles = [
            decoder.register_forward_pre_hook(lambda *_: session.begin()),
            decoder.register_forward_hook(lambda *_: session.end()),
        ]
        for handle in handles:
            stack.callback(handle.remove)
        stack.enter_context(switched(list(self._layout.configs)))

    def run(self, batch: Batch) -> None:
        """Run the model's body without its vocabulary projection."""
        body = body_of(self.model)
        body(**batch_inputs(body, batch, self.device))

    def logits(self, batch: Batch) -> Tensor:
        """Run the model and return next-token logits `[B, T, vocabulary]`.

        Raises:
            UnsupportedModelError: the model has no vocabulary projection.
        """
        if self.model.get_output_embeddings() is None:
            raise UnsupportedModelError(
                f"model {type(self.model).__name__}",
                found="no vocabulary projection",
                expected="a model with a language-model head",
                fix="Load it as its ForCausalLM or ForMaskedLM class.",
            )
        output = self.model(**batch_inputs(self.model, batch, self.device))
        logits: Tensor = output.logits
        return logits

    def output_projection(self, layer: int) -> Tensor:
        """Return W_O of one attention layer, split by query head: `[H, Dv, M]`.

        Raises:
            UnsupportedModelError: no such attention layer, or a projection that is not one plain matrix.
        """
        module = self._module(layer)
        return split_projection(self.model, module, self.info.n_heads, self._value_dim[layer], self.info.d_model)

    def value_projection(self, layer: int) -> Tensor:
        """Return W_V of one attention layer, split by KV head: `[G, M, Dv]`; found by one forward on first use.

        Raises:
            UnsupportedModelError: no such attention layer, or values that are not one plain matrix of what the
                attention norm gives.
        """
        self._module(layer)
        return value_weight(self._values, layer)

    @cached_property
    def _values(self) -> dict[int, Values | str]:
        return find_values(self.model, self._layout, self.parts)

    def token_embeddings(self) -> tuple[Tensor, Tensor]:
        """Return W_E `[V, M]`, whose rows enter the residual stream, and W_U `[V, M]`, whose rows read it at the end.

        Raises:
            UnsupportedModelError: one of them is absent, offloaded, or of another width than the residual stream.
        """
        found = []
        for name in ("input", "output"):
            weight = getattr(getattr(self.model, f"get_{name}_embeddings")(), "weight", None)
            if weight is None or weight.device.type == "meta" or weight.shape[1] != self.info.d_model:
                raise UnsupportedModelError(
                    f"{name} embeddings of {type(self.model).__name__}",
                    found="none" if weight is None else f"a {tuple(weight.shape)} matrix on {weight.device}",
                    expected=f"a matrix in memory of rows of {self.info.d_model}",
                )
            found.append(weight.detach())
        return found[0], found[1]

    def _module(self, layer: int) -> nn.Module:
        for module, index in self._layout.attention.items():
            if index == layer:
                return module
        raise UnsupportedModelError(
            f"layer {layer} of {self.info.model_id}",
            found="no softmax attention there",
            expected=f"one of {list(self.info.attention_layers)}",
        )
