"""Building blocks and built-in models."""

from widthwise.nn._feedforward import cnn, mlp
from widthwise.nn._hypernetworks import HyperNet
from widthwise.nn._hypernetworks_diagnosis import Proportionality, proportionality
from widthwise.nn._hypernetworks_external import Externalized, externalize
from widthwise.nn._hypernetworks_parts import encode, ordinary_values, to_unit
from widthwise.nn._models import MODELS, build_model
from widthwise.nn._optimizers import Lion, Muon, SpectralDescent
from widthwise.nn._optimizers_modular import ModularResidual, modular_groups, modular_init_
from widthwise.nn._optimizers_orthogonal import natural_norm, newton_schulz
from widthwise.nn._optimizers_unit import Multiplied, unit_scale_, unit_scaled_groups
from widthwise.nn._resnet import PreActivationBlock, resnet
from widthwise.nn._transformer import Attention, Rows, Transformer, TransformerBlock, transformer

__all__ = [
    "MODELS",
    "Attention",
    "Externalized",
    "HyperNet",
    "Lion",
    "ModularResidual",
    "Multiplied",
    "Muon",
    "PreActivationBlock",
    "Proportionality",
    "Rows",
    "SpectralDescent",
    "Transformer",
    "TransformerBlock",
    "build_model",
    "cnn",
    "encode",
    "externalize",
    "mlp",
    "modular_groups",
    "modular_init_",
    "natural_norm",
    "newton_schulz",
    "ordinary_values",
    "proportionality",
    "resnet",
    "to_unit",
    "transformer",
    "unit_scale_",
    "unit_scaled_groups",
]
