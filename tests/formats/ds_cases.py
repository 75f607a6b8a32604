# SPDX-License-Identifier: Apache-2.0
"""The table of DeepSpeed cases. A new case is a line here and, if need be, a model."""

from collections.abc import Callable
from dataclasses import dataclass, field

import ds_models as m


@dataclass(frozen=True)
class Case:
    stage: int
    world: int = 2
    dtype: str = "bf16"
    model: Callable = m.mlp
    zero: dict = field(default_factory=dict)  # goes into zero_optimization
    config: dict = field(default_factory=dict)  # goes into the top level of the DeepSpeed config
    groups: bool = False  # three optimizer groups, not in model order
    hf: bool = False  # expected/hf*: directories written by the real save_pretrained
    zero_init: bool = False
    exclude_frozen: bool = False
    tags: tuple = ()  # several saves of different weights; `latest` names the last one
    universal: bool = False  # also convert with ds_to_universal
    trainer: bool = False  # config and tokenizer in the run directory, checkpoint-2/ below it
    rich_client: bool = False  # client_state holds classes, arrays and random states
    save16: bool = False  # also write save_16bit_model's pytorch_model.bin
    autotp: int = 1

    @property
    def pipeline(self):
        return self.model is m.pipeline

    @property
    def moe(self):
        return self.model is m.moe

    @property
    def source(self):
        """What a user would hand to gatherfs, relative to the case directory."""
        return "ckpt/checkpoint-2" if self.trainer else "ckpt"


def plain_grid():
    grid = [(1, "fp32", 2), (1, "bf16", 3), (2, "fp32", 3), (2, "bf16", 1), (2, "bf16", 2)]
    grid += [(2, "bf16", 4), (2, "bf16", 5), (2, "fp16", 2), (3, "fp32", 3), (3, "bf16", 1)]
    grid += [(3, "bf16", 2), (3, "bf16", 3), (3, "bf16", 4), (3, "bf16", 5), (3, "fp16", 2)]
    return {f"z{s}_{d}_w{w}": Case(s, w, d) for s, d, w in grid}


GATHER_16 = {"stage3_gather_16bit_weights_on_model_save": True}
CPU = {"device": "cpu"}
LEGACY = {"checkpoint": {"checkpoint_serialization": False}}
BF16_MASTERS = {
    "bf16": {"enabled": True, "bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
}

CASES = {
    **plain_grid(),
    "z0_bf16_w2": Case(0),
    "z0_fp32_w2": Case(0, dtype="fp32"),
    # scalars, strides, masters of other types
    "z2_scalar_w2": Case(2, model=m.mlp_scalar),
    "z3_scalar_w2": Case(3, model=m.mlp_scalar),
    "z0_strided_w2": Case(0, dtype="fp32", model=m.strided),
    "z1_strided_w2": Case(1, model=m.strided_frozen),
    "z2_strided_w2": Case(2, model=m.strided),
    "z3_strided_w3": Case(3, 3, model=m.strided),
    "z1_bf16opt_w2": Case(1, config={"data_types": {"grad_accum_dtype": "fp32"}}),  # BF16_Optimizer
    "z2_bf16masters_w2": Case(2, config=BF16_MASTERS),
    "z3_bf16masters_w2": Case(3, config=BF16_MASTERS),
    # optimizer groups and layout options
    "z2_groups_w3": Case(2, 3, model=m.llama, groups=True),
    "z3_groups_w3": Case(3, 3, model=m.llama, groups=True),
    "z2_roundrobin_w3": Case(2, 3, zero={"round_robin_gradients": True}),
    "z2_elastic_w2": Case(2, zero={"elastic_checkpoint": True}),
    "z2_align_w3": Case(2, 3, zero={"parameter_alignment": True}),
    "z2_offload_w2": Case(2, zero={"offload_optimizer": CPU}),
    "z3_offload_w2": Case(3, zero={"offload_optimizer": CPU, "offload_param": CPU}),
    "z3_subgroups_w3": Case(3, 3, model=m.llama, zero={"sub_group_size": 500}),
    "z3_persist_w2": Case(3, model=m.llama, zero={"stage3_param_persistence_threshold": 300}),
    "z3_hpz_w4": Case(3, 4, zero={"zero_hpz_partition_size": 2}),
    "z3_zeroinit_w2": Case(3, zero_init=True),
    # models from transformers, with the directory that save_pretrained writes
    "z0_hf_bf16_w2": Case(0, model=m.llama, hf=True),
    "z1_hf_bf16_w3": Case(1, 3, model=m.llama, hf=True),
    "z2_hf_bf16_w2": Case(2, model=m.llama, hf=True),
    "z3_hf_bf16_w4": Case(3, 4, model=m.llama, hf=True, save16=True, zero=GATHER_16),
    "z3_hf_bf16_w5": Case(3, 5, model=m.llama, hf=True),
    "z3_hf_fp32_w3": Case(3, 3, "fp32", model=m.llama, hf=True),
    "z3_hf_fp16_w2": Case(3, 2, "fp16", model=m.llama, hf=True),
    "z2_hf_tied_w2": Case(2, model=m.llama_tied, hf=True, save16=True),
    "z3_hf_tied_w3": Case(3, 3, model=m.llama_tied, hf=True, save16=True, zero=GATHER_16),
    "z2_hf_gpt2_w3": Case(2, 3, model=m.gpt2, hf=True),
    "z3_hf_gpt2_w2": Case(3, model=m.gpt2, hf=True),
    "z1_hf_frozen_w2": Case(1, model=m.llama_frozen, hf=True),
    "z2_hf_frozen_w3": Case(2, 3, model=m.llama_frozen, hf=True),
    "z3_hf_frozen_w3": Case(3, 3, model=m.llama_frozen, hf=True),
    "z2_hf_excl_w2": Case(2, model=m.llama_frozen, hf=True, exclude_frozen=True),
    "z3_hf_excl_w3": Case(3, 3, model=m.llama_frozen, hf=True, exclude_frozen=True),
    "z2_hf_wrapped_w2": Case(2, model=m.llama_wrapped, hf=True),
    "z3_hf_wrapped_w2": Case(3, model=m.llama_wrapped, hf=True),
    # (ZeRO-3 itself can't train a model that torch.compile has wrapped)
    "z2_hf_compiled_w2": Case(2, model=m.llama_compiled, hf=True),
    "z3_hf_custom_w2": Case(3, model=m.custom, hf=True),
    "z3_hf_trainer_w2": Case(3, model=m.llama, hf=True, trainer=True),
    "z3_hf_tags_w2": Case(3, model=m.llama, hf=True, tags=("global_step2", "best", "step-1")),
    "z2_hf_tags_w2": Case(2, model=m.llama, hf=True, tags=("global_step9", "global_step10")),
    # adapters and wrappers: served whole as `raw`
    "z2_lora_w2": Case(2, model=m.llama_lora),
    "z2_lora_excl_w2": Case(2, model=m.llama_lora, exclude_frozen=True),
    "z3_lora_w3": Case(3, 3, model=m.llama_lora),
    "z3_lora_excl_w3": Case(3, 3, model=m.llama_lora, exclude_frozen=True),
    "z2_composite_w2": Case(2, model=m.PolicyAndValue),
    "z3_composite_w2": Case(3, model=m.PolicyAndValue),
    # other files
    "z0_legacy_w2": Case(0, config=LEGACY),
    "z2_legacy_w2": Case(2, config=LEGACY),
    "z3_legacy_w2": Case(3, config=LEGACY),
    "z3_client_w2": Case(3, rich_client=True),
    "z2_moe_w2": Case(2, model=m.moe),
    "z0_moe_w2": Case(0, model=m.moe),
    "z1_pipe_w2": Case(1, model=m.pipeline),
    "z0_pipe_w2": Case(0, model=m.pipeline),
    "z1_autotp_w2": Case(1, model=m.llama, autotp=2),
    "z2_universal_w2": Case(2, model=m.llama, universal=True),
    "z3_universal_w2": Case(3, model=m.llama, universal=True),
    "z3_universal_frozen_w2": Case(3, model=m.llama_frozen, universal=True),
}
