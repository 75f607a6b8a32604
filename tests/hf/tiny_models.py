# SPDX-License-Identifier: Apache-2.0
"""Tiny models of any model_type that transformers knows, made from their config classes alone.

tiny_config(model_type) is the default config with every size cut down; TWEAKS has what single
types need on top. model_classes(model_type) are the classes that such a config makes."""

import copy
import importlib
import inspect
import os
import warnings

import offline  # noqa: F401
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

transformers.logging.set_verbosity_error()

LAYERS = """num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers
    num_encoder_layers num_decoder_layers depth transformer_layers""".split()
WIDTHS = """hidden_size d_model n_embd dim embed_dim embedding_size width projection_dim hidden_dim
    encoder_hidden_dim cross_attention_hidden_size out_hidden_size projector_hidden_size
    embedding_dim output_dim""".split()
INNER = """intermediate_size encoder_ffn_dim decoder_ffn_dim d_ff ffn_dim n_inner mlp_dim
    dim_feedforward encoder_ffn_embed_dim intermediate_size_mlp""".split()
EXPERT_INNER = """moe_intermediate_size shared_expert_intermediate_size expert_intermediate_size
    moe_shared_expert_intermediate_size shared_intermediate_size""".split()
HEADS = """num_attention_heads num_heads n_head n_heads encoder_attention_heads
    decoder_attention_heads attention_heads""".split()
EXPERTS = """num_experts n_routed_experts num_local_experts moe_num_experts""".split()

SMALL = {
    **dict.fromkeys(LAYERS, 2),
    **dict.fromkeys(WIDTHS, 32),
    **dict.fromkeys(INNER, 48),
    **dict.fromkeys(EXPERT_INNER, 16),
    **dict.fromkeys(HEADS, 4),
    **dict.fromkeys(EXPERTS, 4),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "v_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 16,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "num_experts_per_tok": 2,
    "moe_top_k": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "n_group": 1,
    "first_k_dense_replace": 1,
    "topk_group": 1,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "image_size": 32,
    "patch_size": 8,
}


def sub_configs(config):
    return {k: v for k, v in vars(config).items() if isinstance(v, PreTrainedConfig)}


def default(config_class, more=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return config_class(**copy.deepcopy(more or {}))  # some take theirs apart


def small_values(config):
    """What of the config is larger than it need be."""
    values = {}
    for key, value in vars(config).items():
        if key in SMALL and type(value) is int and value > SMALL[key]:
            values[key] = SMALL[key]
        if key.endswith("_token_id") and type(value) is int and value >= 64:
            values[key] = 3
    return values


# What a type needs besides: values of its config, those of configs inside as dictionaries.
RESNET = {
    "model_type": "resnet",
    "hidden_sizes": [8, 8, 8, 8],
    "depths": [1, 1, 1, 1],
    "embedding_size": 8,
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
DETR = {"use_timm_backbone": False, "backbone_config": RESNET, "backbone": None}
# In place of models that need timm.
SIGLIP = {"vision_config": {"model_type": "siglip_vision_model"}}
TWEAKS = {
    "aya_vision": SIGLIP,
    "chameleon": {"vocabulary_map": {"<image>": 4}},
    "conditional_detr": DETR,
    "dab-detr": DETR,
    "deepseek_ocr2_text": {"num_hidden_layers": 2, "mlp_layer_types": ["dense", "sparse"]},
    "deformable_detr": DETR,
    "detr": DETR,
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "emu3": {"vocabulary_map": {"<image>": 4}},
    "encoder-decoder": {"encoder": {"model_type": "bert"}, "decoder": {"model_type": "bert"}},
    "esm": {"vocab_size": 33},
    "fast_vlm": SIGLIP,
    "gemma3n": SIGLIP,
    "granite4_vision": {"text_config": {"model_type": "granite"}},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "hunyuan_vl_text": {"head_dim": 8},
    "idefics3": {"pad_token_id": 0},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "ministral": {"head_dim": 8},
    "perception_lm": SIGLIP,
    "qwen3_omni_moe": {"talker_config": {"spatial_merge_size": 2}},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 16},
    "sapiens2": {
        "head_config": {
            "upsample_out_channels": [8, 8, 8, 8],
            "upsample_kernel_sizes": [4, 4, 4, 4],
            "conv_out_channels": [8, 8],
            "conv_kernel_sizes": [1, 1],
            "scale_conv_out_channels": [8, 8],
            "scale_conv_kernel_sizes": [1, 1],
            "scale_final_input_size": 8,
            "scale_final_hidden_sizes": [8, 8],
        }
    },
    "smolvlm": {"pad_token_id": 0},
    "speech-encoder-decoder": {
        "encoder": {"model_type": "wav2vec2"},
        "decoder": {"model_type": "bert"},
    },
    "table-transformer": DETR,
    "vision-encoder-decoder": {"encoder": {"model_type": "vit"}, "decoder": {"model_type": "bert"}},
    "vision-text-dual-encoder": {
        "vision_config": {"model_type": "vit"},
        "text_config": {"model_type": "bert"},
    },
}
# The same for configs whose sizes are cut down.
TINY_TWEAKS = {
    "cosmos3_edge_text": {"head_dim": 8, "rope_parameters": {"mrope_section": [2, 1, 1]}},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 64,
    },
    "glm5_next_text": {"num_key_value_heads": 4},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
    "lw_detr": {"backbone_config": {"image_size": 256}},
    "longcat_flash": {"ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "zero_expert_num": 2},
    "swin": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2]},
}
EIGHT_HEADS = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
CLASS_TWEAKS = {
    "BeitForSemanticSegmentation": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
    "ConditionalDetrForSegmentation": EIGHT_HEADS,
    "DetrForSegmentation": EIGHT_HEADS,
}


def merged(values, more):
    """Values of a config with others, config inside by config inside."""
    out = dict(values)
    for key, value in more.items():
        both = isinstance(out.get(key), dict) and isinstance(value, dict)
        # Another model_type inside is another config altogether.
        if both and "model_type" in value:
            both = value["model_type"] == out[key].get("model_type")
        out[key] = merged(out[key], value) if both else value
    return out


def tiny(config_class, model_type, more):
    """A config of small values, and of small configs inside."""
    more = merged(merged(TWEAKS.get(model_type, {}), TINY_TWEAKS.get(model_type, {})), more)
    config = default(config_class, TWEAKS.get(model_type, {}))
    values = small_values(config)
    for key, inner in sub_configs(config).items():
        # What is said about a config inside is said to it, not beside what follows from it.
        values[key] = tiny(type(inner), inner.model_type, more.pop(key, {})).to_dict()
    return default(config_class, merged(values, more))


def tiny_config(model_type, class_name=""):
    return tiny(CONFIG_MAPPING[model_type], model_type, CLASS_TWEAKS.get(class_name, {}))


def few_layers(model_type):
    """The default config with two layers, for a look at a model's modules."""

    def cut(config):
        for key in LAYERS:
            if type(getattr(config, key, None)) is int:
                setattr(config, key, min(getattr(config, key), 2))
        if hasattr(config, "first_k_dense_replace"):
            config.first_k_dense_replace = 1
        for inner in sub_configs(config).values():
            vars(inner).update(TWEAKS.get(inner.model_type, {}))
            cut(inner)
        return config

    return cut(default(CONFIG_MAPPING[model_type], TWEAKS.get(model_type, {})))


def model_classes(model_type):
    """The classes that have this type's config."""
    config_class = CONFIG_MAPPING[model_type]
    package = importlib.import_module(config_class.__module__.rsplit(".", 1)[0])
    for file in sorted(os.listdir(os.path.dirname(package.__file__))):
        if not (file.startswith("modeling_") and file.endswith(".py")):
            continue
        try:
            module = importlib.import_module(f"{package.__name__}.{file[:-3]}")
        except ImportError:
            continue  # a library is missing
        for name, value in list(vars(module).items()):
            if (
                inspect.isclass(value)
                and issubclass(value, PreTrainedModel)
                and value.__module__ == module.__name__
                and value.config_class is config_class
                and "PreTrainedModel" not in name
            ):
                yield value
