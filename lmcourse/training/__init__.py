"""What every chapter that trains needs."""

from lmcourse.training.batches import Batches, DocumentBatches, StreamBatches
from lmcourse.training.language_model import NeuralLanguageModel, next_token_loss

__all__ = ["Batches", "DocumentBatches", "NeuralLanguageModel", "StreamBatches", "next_token_loss"]
