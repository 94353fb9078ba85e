"""What a model compiles to, for as long as its variables stay the same ones."""

from typing import Any, Self

import keras


class ModelGraphs:
    """Compiled functions of a model; a subclass makes them where it is made.

    A graph reads the variables that it was traced with. Where the model has got others since (LoRA, quantization), it
    would go on computing with the old ones: `of` makes it anew.

    Args:
        model: what is compiled; it is built if it was not.
    """

    def __init__(self, model: keras.Model):
        if not model.built:
            model.build()
        self._state = _state(model)

    @classmethod
    def of(cls, model: keras.Model) -> Self:
        """Return the model's graphs of this class: those made before, as long as they compute with its variables."""
        name = f"_compiled_{cls.__name__}"
        graphs = getattr(model, name, None)
        if graphs is None or [*map(id, graphs._state)] != [*map(id, _state(model))]:
            graphs = cls(model)
            setattr(model, name, graphs)
        return graphs


def uses_xla(model: keras.Model) -> bool:
    """Return whether the model is compiled with XLA; one that was never compiled is not."""
    return bool(getattr(model, "compiled", False) and getattr(model, "jit_compile", False))


def _state(model: keras.Model) -> tuple[Any, ...]:
    """Return all that a graph depends on."""
    return uses_xla(model), *model.variables
