"""Models of the transformers library, built offline from small configurations."""

import pytest
import torch

from widthwise.program import AxisKind, trace

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TOKENS = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}


def _gpt2():
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=20, **TOKENS)
    return transformers.GPT2LMHeadModel(config)


def _bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, vocab_size=50))


def _llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2, **TOKENS))


def _vit():
    return transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, image_size=32, patch_size=8))


def _resnet():
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return transformers.ResNetForImageClassification(config)


def _convnext():
    sizes = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
    return transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**sizes, image_size=32))


MODELS = {"gpt2": _gpt2, "bert": _bert, "llama": _llama, "vit": _vit, "resnet": _resnet, "convnext": _convnext}
TEXT = ("gpt2", "bert", "llama")


@pytest.fixture(scope="module", params=list(MODELS))
def traced(request):
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    if request.param in TEXT:
        batch = {"input_ids": torch.randint(3, 50, (3, 7))}
    else:
        batch = {"pixel_values": torch.randn(3, 3, 32, 32)}
    return request.param, model, batch, trace(model, batch)


def test_the_program_gives_the_logits(traced, execute):
    _, model, batch, program = traced
    inputs = dict(zip(program.inputs, batch.values(), strict=True))
    with torch.no_grad():
        expected = model(**batch).logits
    torch.testing.assert_close(execute(program, inputs, {})[program.output], expected, rtol=1e-5, atol=1e-6)


def test_all_axes_are_known(traced):
    _, _, _, program = traced
    assert [node for node in program.nodes if node.shape is not None and node.axes is None] == []
    assert [factor.kind for factor in program.node(program.output).axes[0]] == [AxisKind.BATCH]


def test_roles_follow_the_kind_of_layer(traced):
    name, _, _, program = traced
    for weight in program.weights:
        last = "lm_head" in weight.name or "classifier" in weight.name
        if len(weight.shape) == 1 or weight.name.endswith(("token", "embeddings", "parameter")):
            expected = "finite" if last else "vector"
        elif weight.module_type == "Embedding":
            expected = "embedding"
        elif "dwconv" in weight.name:
            expected = "vector"
        elif last:
            expected = "output"
        else:
            first = "patch_embeddings" in weight.name or "embedder.embedder" in weight.name
            expected = "input" if first else "hidden"
        assert weight.role.value == expected, (name, weight.name)


def test_initial_scales_are_those_of_the_configuration(traced):
    name, model, _, program = traced
    if name == "resnet":  # drawn by He's rule with fan-out
        return
    scale = model.config.initializer_range
    small = scale / (2 * 2) ** 0.5  # GPT-2's residual projections
    for weight in program.weights:
        if len(weight.shape) == 2:
            expected = small if "c_proj" in weight.name else scale
            assert weight.init_std == pytest.approx(expected), weight


def test_ties_and_counts(traced):
    name, model, _, program = traced
    assert program.parameters == sum(parameter.numel() for parameter in model.parameters())
    if name == "gpt2":
        weight = program.weight("lm_head.weight")
        assert (weight.name, weight.uses) == ("transformer.wte.weight", 2)
    assert getattr(model.config, "use_cache", True)
