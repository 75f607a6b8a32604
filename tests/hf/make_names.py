# SPDX-License-Identifier: Apache-2.0
"""Training states of tiny models under their modules' names, and what save_pretrained makes of
them.

make(key, folder) makes one for a key of transformers' conversion mapping, a model_type or a class:

    folder/state/          pytorch_model.bin (model.state_dict()) and config.json
    folder/hf/             model.save_pretrained()
    folder/shards/         the same in about four files

make_fsdp(folder) makes folder/state/ with two ranks' FSDP2 shards of a Mixtral, and folder/hf/."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "formats"), HERE]
import offline  # noqa: E402, F401

import torch  # noqa: E402
import transformers  # noqa: E402
from tiny_models import CONFIG_MAPPING, model_classes, tiny_config  # noqa: E402
from transformers import conversion_mapping  # noqa: E402

MAX_PARAMETERS = 30_000_000
# Which class of a model_type stands for it: the first of these that it has.
PREFERRED = ["ForConditionalGeneration", "ForCausalLM", "ForMaskedLM", "ForObjectDetection"]
PREFERRED += ["Model"]
# Families whose names stay the module's: docs/semantics.md.
NOT_CONVERTED = """ernie4_5_vl_moe gte hrm_text inkling_mm_model jina_embeddings_v3 kimi_k25
    NemotronH_Omni_Reasoning_V3 nomic_bert qianfan_ocr radio RfDetrForInstanceSegmentation
    RfDetrForObjectDetection RfDetrModel sapiens2 Sapiens2ForImageMatting
    Sapiens2ForNormalEstimation Sapiens2ForPointmapEstimation Sapiens2ForPoseEstimation
    Sapiens2ForSemanticSegmentation step3p5_vision step3p7 tipsv2 tipsv2_dpt
    Tipsv2DptForDepthEstimation Tipsv2DptForNormalEstimation Tipsv2DptForSemanticSegmentation
    Tipsv2TextModel Tipsv2VisionBackbone Tipsv2VisionModel""".split()


class CannotMake(Exception):
    pass


def keys():
    mapping = conversion_mapping._build_checkpoint_conversion_mapping()
    return sorted(mapping, key=str.lower)


def class_of(key):
    """The class and model_type that stand for a key."""
    if hasattr(transformers, key):
        model_class = getattr(transformers, key)
        return model_class, model_class.config_class.model_type
    if key not in CONFIG_MAPPING:
        raise CannotMake("no public class of this name")
    classes = [c for c in model_classes(key) if hasattr(transformers, c.__name__)]
    if not classes:
        raise CannotMake("no class has this type's config")
    for end in PREFERRED:
        for model_class in classes:
            if model_class.__name__.endswith(end):
                return model_class, key
    return classes[0], key


def tiny_model(key, **config):
    model_class, model_type = class_of(key)
    torch.manual_seed(0)
    try:
        values = tiny_config(model_type, model_class.__name__)
        for name, value in config.items():
            setattr(values, name, value)
        with torch.device("meta"):
            size = sum(p.numel() for p in model_class(values).parameters())
        if not size:
            raise CannotMake("it has no parameters")
        if size > MAX_PARAMETERS:
            raise CannotMake(f"{size} parameters are too many")
        model = model_class(values)
    except CannotMake:
        raise
    except Exception as error:  # whatever a constructor of 200 models may say
        raise CannotMake(repr(error)[:150]) from None
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.normal_()
    return model.eval()


def save_state(model, folder):
    """As a trainer leaves it: the module's own names."""
    state = model.state_dict()
    os.makedirs(folder)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(folder)
    torch.save(state, os.path.join(folder, "pytorch_model.bin"))
    return state


def shard_size(state):
    return max(sum(t.nbytes for t in state.values()) // 4, 1)


def make(key, folder, **config):
    """The model. Raises CannotMake with the reason."""
    model = tiny_model(key, **config)
    state = save_state(model, os.path.join(folder, "state"))
    model.save_pretrained(os.path.join(folder, "hf"))
    model.save_pretrained(os.path.join(folder, "shards"), max_shard_size=shard_size(state))
    return model


def fsdp_rank(rank, folder, port):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    # Three experts on two ranks: the fused tensors' shards are of unequal size.
    model = tiny_model("mixtral", num_local_experts=3)
    if rank == 0:
        save_state(model, os.path.join(folder, "state"))
        os.unlink(os.path.join(folder, "state", "pytorch_model.bin"))
        model.save_pretrained(os.path.join(folder, "hf"))
    torch.distributed.barrier()
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    state = {"model": get_model_state_dict(model)}
    dcp.save(state, checkpoint_id=os.path.join(folder, "state", "pytorch_model_fsdp_0"))
    torch.distributed.destroy_process_group()


def make_fsdp(folder):
    from make_deepspeed import run_ranks

    run_ranks(fsdp_rank, 2, folder, folder)
