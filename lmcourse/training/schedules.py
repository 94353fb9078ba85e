"""The optimizer that the course's smaller models are trained with."""

import keras

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
