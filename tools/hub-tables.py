#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the tables src/view/hub_{text,vision,mixed,models}.c from the transformers that is
installed: conversion_mapping.py as it is, and which models are inside which.

    PYTHONPATH=tests tools/hub-tables.py

Run it for a new release of transformers, then clang-format -i, read the difference, and let
tests/hf/test_names.py prove it. It prints which classes cannot be made (some want timm, which is
not needed otherwise)."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "tests"), os.path.join(ROOT, "tests", "hf")]

from transformers import conversion_mapping  # noqa: E402
from transformers.core_model_loading import (  # noqa: E402
    Concatenate,
    MergeModulelist,
    PrefixChange,
    Transpose,
    WeightConverter,
    WeightRenaming,
)

# Which file a family is in; what is not here is in hub_mixed.c.
TEXT = """afmoe axk1 axk2 cohere2_moe deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 dots1
    ernie4_5_moe esm exaone_moe flex_olmo gemma3n_text glm4_moe glm4_moe_lite glm5_next
    glm5_next_text glm_moe_dsa GPTNeoXForCausalLM granitemoe granitemoehybrid granitemoeshared gte
    hrm_text hunyuan_v1_moe hy_v3 hy_v4 jamba jina_embeddings_v3 kimi_linear laguna legacy lfm2_moe
    longcat_flash mellum mimo_v2_flash minimax minimax_m2 mixtral MtpModel nemotron_h nomic_bert
    olmo_hybrid olmoe phimoe qwen2_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next
    qwen4_exp_text solar_open timesfm2_5""".split()
VISION = """BeitBackbone BeitForSemanticSegmentation BeitModel ConditionalDetrForSegmentation
    ConditionalDetrModel d_fine deformable_detr DeiTModel DetrForSegmentation DetrModel
    Dinov2Backbone Dinov2Model Dinov2WithRegistersBackbone Dinov2WithRegistersModel dinov3_convnext
    dinov3_vit IJepaModel lw_detr maskformer MaskFormerDetrDecoder pixio pp_doclayout_v2
    pp_doclayout_v3 radio RfDetrForInstanceSegmentation RfDetrForObjectDetection RfDetrModel rt_detr
    rt_detr_v2 sam3_tracker sam3_tracker_video sapiens2 Sapiens2ForImageMatting
    Sapiens2ForNormalEstimation Sapiens2ForPointmapEstimation Sapiens2ForPoseEstimation
    Sapiens2ForSemanticSegmentation SegformerForSemanticSegmentation SegformerModel swin
    SwinBackbone timm_wrapper tipsv2_dpt Tipsv2DptForDepthEstimation Tipsv2DptForNormalEstimation
    Tipsv2DptForSemanticSegmentation videomae ViTMAEForPreTraining ViTMAEModel
    ViTMSNForImageClassification ViTMSNModel ViTModel VivitModel yolos""".split()


def quote(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def operation(rule):
    """The op of a converter: what its reverse does."""
    ops = rule.operations
    sources, targets = len(rule._original_source_patterns), len(rule._original_target_patterns)
    merges = isinstance(ops[0], MergeModulelist) and ops[0].dim == 0
    if targets == 1 and merges and len(ops) == 1 and sources == 1:
        return "SPLIT"
    if targets == 1 and merges and len(ops) == 2 and type(ops[1]) is Concatenate:
        return "SPLIT" if ops[1].dim == 1 and sources > 1 else "OTHER"
    if targets == 1 and len(ops) == 1 and type(ops[0]) is Concatenate and ops[0].dim == 0:
        return "SHARDS" if ops[0].num_shards_attribute else "CHUNK"
    if len(ops) == 1 and type(ops[0]) is Transpose and ops[0].check_dims:
        return "SAME"
    return "OTHER"


def row(rule):
    if type(rule) is PrefixChange:
        add = rule.prefix_to_add is not None
        part = rule.prefix_to_add if add else rule.prefix_to_remove
        op = "ADD" if add else "REMOVE"
        return f"{{ GF_HUB_{op}, {quote(part)}, {quote(rule.model_prefix)} }}"
    hub, module = rule._original_source_patterns, rule._original_target_patterns
    if type(rule) is WeightRenaming:
        op = "RENAME"
        assert len(hub) == len(module) == 1
    elif isinstance(rule, WeightConverter):
        op = operation(rule)
        if op == "SHARDS":
            module = module + [rule.operations[0].num_shards_attribute]
    else:
        op = "OTHER"
    for pattern in hub + module:
        assert " " not in pattern and not re.search(r"\\[2-9]", pattern), pattern
    return f"{{ GF_HUB_{op}, {quote(' '.join(hub))}, {quote(' '.join(module))} }}"


def share(rows):
    """name -> rows, where a run of rows that is another family becomes a USE of it, and names with
    equal rows are kept as (name, other)."""
    shared, same = {}, {}
    by_rows = {}
    for name, lines in rows.items():
        if tuple(lines) in by_rows:
            same[name] = by_rows[tuple(lines)]
        else:
            by_rows[tuple(lines)] = name
            shared[name] = lines
    for name, lines in shared.items():
        for other, inner in sorted(shared.items(), key=lambda item: -len(item[1])):
            if other == name or len(inner) < 2 or len(inner) >= len(lines):
                continue
            for at in range(len(lines) - len(inner) + 1):
                if lines[at : at + len(inner)] == rows[other]:
                    use = f"{{ GF_HUB_USE, {quote(other)}, NULL }}"
                    lines = lines[:at] + [use] + lines[at + len(inner) :]
                    break
        shared[name] = lines
    return shared, same


def c_name(name):
    return re.sub(r"\W", "_", name)


def head(kind, about):
    out = ["/* SPDX-License-Identifier: Apache-2.0 */", "/*", f" * hub_{kind}.c - {about}", " *"]
    out += [" * Written by tools/hub-tables.py from transformers 5.18.", " */"]
    return out + ['#include "view/hub_int.h"', ""]


def families(kind, about, rows):
    shared, same = share(rows)
    home = {}
    for name in rows:
        home[name] = "text" if name in TEXT else "vision" if name in VISION else "mixed"
    mine = {n for n in rows if home[n] == kind}
    out = head(kind, about)
    wanted = {same.get(n, n) for n in mine}
    for name in sorted(wanted, key=str.lower):
        out.append(f"static const struct gf_hub_rule {c_name(name)}[] = {{")
        out += [f"    {line}," for line in shared[name]] + ["    { 0 },", "};", ""]
    out.append(f"const struct gf_hub_family gf_hub_{kind}[] = {{")
    for name in sorted(mine, key=str.lower):
        out.append(f"    {{ {quote(name)}, {c_name(same.get(name, name))} }},")
    out += ["    { 0 },", "};", ""]
    return "\n".join(out)


ABOUT = {
    "text": "what language models' tensors are called on the hub.",
    "vision": "what vision models' tensors are called on the hub.",
    "mixed": "what the tensors of models with several inputs are called on the hub.",
}


# ---- which models are inside which ----


def all_models():
    """name -> (model on the meta device) of every class that can be made."""
    import torch
    from tiny_models import CONFIG_MAPPING, few_layers, model_classes, tiny_config

    for model_type in list(CONFIG_MAPPING.keys()):
        for model_class in model_classes(model_type):
            # The default config says what is inside; the tiny one is there for all that it lacks.
            for config in (
                few_layers,
                lambda kind, name=model_class.__name__: tiny_config(kind, name),
            ):
                try:
                    with torch.device("meta"):
                        model = model_class(config(model_type))
                    break
                except Exception as error:
                    reason = f"{model_class.__name__} ({model_type}): {error!r}"[:150]
            else:
                print(reason, file=sys.stderr)
                continue
            yield model


def config_paths(config, path=""):
    from tiny_models import sub_configs

    yield id(config), path
    for key, inner in sub_configs(config).items():
        yield from config_paths(inner, f"{path}.{key}".strip("."))


def is_open(config, path):
    """Can the sub-config be of any model_type?"""
    *outer, key = path.split(".")
    for name in outer:
        config = getattr(config, name)
    inner = type(config).sub_configs.get(key)
    return inner is not None and inner.__name__ == "AutoConfig"


def inside(model):
    """The models directly inside: path, config's path, class, model_type, whether that is open."""
    from transformers import PreTrainedModel

    paths = dict(config_paths(model.config))
    found = []
    for path, module in model.named_modules():
        outer = any(path.startswith(other[0] + ".") for other in found)
        if path and not outer and isinstance(module, PreTrainedModel):
            # T5 and its like give their halves copies of the whole's config.
            config = paths.get(id(module.config), "")
            kind = module.config.model_type or model.config.model_type
            found.append(
                (
                    path,
                    config,
                    type(module).__name__,
                    kind,
                    bool(config) and is_open(model.config, config),
                )
            )
    return found


def what_matters(mapping):
    """class -> its rows that decide about names, and class -> base_model_prefix."""
    subs, bases, keep = {}, {}, {}
    for model in all_models():
        name = type(model).__name__
        subs[name], bases[name] = inside(model), model.base_model_prefix
    matters, before = {name for name in subs if name in mapping}, None

    def decides(outer, row):
        _, config, name, kind, is_open = row
        # What is found by its class leaves its model_type to the models inside it.
        by_type = kind in mapping and (config or outer in mapping)
        return is_open or name in matters or name in mapping or by_type

    while before != len(matters):
        before = len(matters)
        keep = {name: [r for r in rows if decides(name, r)] for name, rows in subs.items()}
        matters |= {name for name, rows in keep.items() if rows}
    return {name: rows for name, rows in keep.items() if rows}, bases


def models(keep, bases):
    out = head("models", "which models are inside which, where that decides about names.")
    out.append("const struct gf_hub_model gf_hub_models[] = {")
    for name in sorted(keep, key=str.lower):
        out.append(f"    {{ {quote(name)}, {quote(bases[name])}, NULL, NULL, NULL }},")
        out += [f"    {{ NULL, {', '.join(map(quote, row[:4]))} }}," for row in keep[name]]
    return "\n".join(out + ["    { 0 },", "};", ""])


def types(keep, mapping):
    from transformers.models.auto import modeling_auto as auto

    plain, backbones = auto.MODEL_MAPPING_NAMES, auto.MODEL_FOR_BACKBONE_MAPPING_NAMES
    out = head("types", "the classes of models inside models, by their config's model_type.")
    out.append("const struct gf_hub_type gf_hub_types[] = {")
    for kind in sorted(set(plain) | set(backbones)):
        model, backbone = plain.get(kind), backbones.get(kind)
        model = model[0] if isinstance(model, tuple) else model
        names = [quote(n) if n in mapping or n in keep else "NULL" for n in (model, backbone)]
        if names != ["NULL", "NULL"]:
            out.append(f"    {{ {quote(kind)}, {', '.join(names)} }},")
    return "\n".join(out + ["    { 0 },", "};", ""])


def write(kind, text):
    with open(os.path.join(ROOT, "src", "view", f"hub_{kind}.c"), "w") as f:
        f.write(text)


def rows_of_mapping():
    mapping = conversion_mapping._build_checkpoint_conversion_mapping()
    return {name: [row(rule) for rule in rules] for name, rules in mapping.items()}


def main():
    rows = rows_of_mapping()
    for kind, about in ABOUT.items():
        write(kind, families(kind, about, rows))
    keep, bases = what_matters(rows)
    write("models", models(keep, bases))
    write("types", types(keep, rows))


if __name__ == "__main__":
    main()
