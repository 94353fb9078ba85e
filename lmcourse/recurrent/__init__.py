"""Chapter 2: word vectors, and networks that read a text step by step and carry a state along.

In reading order: `embeddings` (skip-gram), `numpy_rnn` (a simple RNN by hand, backpropagation through time), `layers`
(simple RNN, LSTM, GRU in Keras), `gradients` (how they fade and burst), `models` (a fixed window, a recurrent state,
training on a stream), `counting` (parameters by formula), `experiments`.
"""

from lmcourse.recurrent.counting import language_model_parameters, layer_parameters
from lmcourse.recurrent.embeddings import (
    SkipGram,
    cosine_similarities,
    mean_rank,
    neighbours,
    noise_distribution,
    skipgram_pairs,
)
from lmcourse.recurrent.gradients import TrainingCurve, gradient_norms, recurrent_layer, train_stretched
from lmcourse.recurrent.layers import GRU, LAYERS, LSTM, RecurrentLayer, SimpleRNN
from lmcourse.recurrent.models import (
    CarriedState,
    RecurrentDecoder,
    RecurrentLanguageModel,
    WindowLanguageModel,
)
from lmcourse.recurrent.numpy_rnn import (
    RNNGradients,
    RNNWeights,
    finite_differences,
    rnn_backward,
    rnn_forward,
)

__all__ = [
    "GRU",
    "LAYERS",
    "LSTM",
    "CarriedState",
    "RNNGradients",
    "RNNWeights",
    "RecurrentDecoder",
    "RecurrentLanguageModel",
    "RecurrentLayer",
    "SimpleRNN",
    "SkipGram",
    "TrainingCurve",
    "WindowLanguageModel",
    "cosine_similarities",
    "finite_differences",
    "gradient_norms",
    "language_model_parameters",
    "layer_parameters",
    "mean_rank",
    "neighbours",
    "noise_distribution",
    "recurrent_layer",
    "rnn_backward",
    "rnn_forward",
    "skipgram_pairs",
    "train_stretched",
]
