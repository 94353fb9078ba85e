"""Learning rates that change in training, and the optimizer that the course's smaller models are trained with."""

from typing import Any

import keras
from keras import ops

from lmcourse.core import check_positive

# The first steps are small: Adam's averages of the gradient know little yet.
WARMUP_STEPS = 50


def scheduled_adam(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Return Adam with a warm-up, a cosine decay to zero, and gradients clipped to a global norm of one.

    Args:
        learning_rate: the largest, reached after 50 steps or a tenth of all.
        steps: how many there will be.

    Raises:
        ValueError: if steps is below 1.

    Example:
        >>> schedule = scheduled_adam(0.01, steps=1000)._learning_rate
        >>> [round(float(schedule(step)), 4) for step in (0, 25, 50, 525, 1000)]
        [0.0, 0.005, 0.01, 0.005, 0.0]

    Reference: Kingma and Ba 2015, arXiv:1412.6980 (Adam); Loshchilov and Hutter 2017, arXiv:1608.03983 (cosine);
    Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063 (clipping).
    """
    check_positive(steps=steps)
    warmup = min(WARMUP_STEPS, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(schedule, global_clipnorm=1.0)


@keras.saving.register_keras_serializable(package="lmcourse")
class InverseSquareRootSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of the Transformer's paper: it rises in a line, then falls with the root of the step.

    The rate of step n, counted from 1, is scale · width^-½ · min(n^-½, n · warmup_steps^-3/2). It is largest at
    n = warmup_steps: scale / √(width · warmup_steps).

    Args:
        width: D, the model's: wider ones take smaller steps.
        warmup_steps: for how many steps it rises; 4,000 in the paper.
        scale: a factor; 1 in the paper.

    Raises:
        ValueError: if width or warmup_steps is below 1, or scale is not above 0.

    Example:
        Keras counts steps from 0, so that its steps 0, 3 and 15 are the paper's 1, 4 and 16:

        >>> schedule = InverseSquareRootSchedule(width=4, warmup_steps=4)
        >>> [float(schedule(step)) for step in (0, 3, 15)]  # ½ · 1/8, ½ · 1/√4, ½ · 1/√16
        [0.0625, 0.25, 0.125]

    Reference: Vaswani et al. 2017, arXiv:1706.03762, equation 3.
    """

    def __init__(self, width: int, warmup_steps: int, scale: float = 1.0):
        super().__init__()
        check_positive(width=width, warmup_steps=warmup_steps)
        if not scale > 0:
            raise ValueError(f"scale must be above 0; got {scale}.")
        self.width, self.warmup_steps, self.scale = width, warmup_steps, scale

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, counted from 0."""
        number = ops.cast(step, "float32") + 1.0
        rising, falling = number * self.warmup_steps**-1.5, ops.rsqrt(number)
        return self.scale * self.width**-0.5 * ops.minimum(rising, falling)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"width": self.width, "warmup_steps": self.warmup_steps, "scale": self.scale}
