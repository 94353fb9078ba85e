"""The package behind the course: language models in Keras 3 and TensorFlow, one subpackage a chapter.

Importing `lmcourse` is cheap: nothing here imports TensorFlow. Reading order is dependency order:
the foundations (`core`, `text`, `datasets`, `generation`, `plotting`), then `ngram`, and so on.
"""

__version__ = "0.1.0"
