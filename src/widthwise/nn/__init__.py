"""Building blocks and built-in models."""

from widthwise.nn._feedforward import cnn, mlp
from widthwise.nn._models import MODELS, build_model
from widthwise.nn._resnet import PreActivationBlock, resnet
from widthwise.nn._transformer import Attention, Rows, Transformer, TransformerBlock, transformer

__all__ = [
    "MODELS",
    "Attention",
    "PreActivationBlock",
    "Rows",
    "Transformer",
    "TransformerBlock",
    "build_model",
    "cnn",
    "mlp",
    "resnet",
    "transformer",
]
