/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub_text.c - what language models' tensors are called on the hub.
 *
 * Written by tools/hub-tables.py from transformers 5.18.
 */
#include "view/hub_int.h"

static const struct gf_hub_rule axk1[] = {
    { GF_HUB_USE, "qwen2_moe", NULL },
    { GF_HUB_RENAME, "post_mlp_layernorm", "mlp.post_mlp_layernorm" },
    { 0 },
};

static const struct gf_hub_rule axk2[] = {
    { GF_HUB_USE, "qwen2_moe", NULL },
    { GF_HUB_RENAME, "W_down", "mlp.fc1" },
    { GF_HUB_RENAME, "W_up", "mlp.fc2" },
    { GF_HUB_RENAME, "self_attn\\.q_b_proj\\.", "self_attn.q_gate_proj." },
    { 0 },
};

static const struct gf_hub_rule deepseek_v4[] = {
    { GF_HUB_RENAME, "\\.attn\\.", ".self_attn." },
    { GF_HUB_RENAME, "\\.ffn\\.", ".mlp." },
    { GF_HUB_RENAME, "\\.indexer\\.compressor\\.", "\\.compressor\\.indexer\\." },
    { GF_HUB_RENAME, "^embed\\.weight$", "embed_tokens.weight" },
    { GF_HUB_RENAME, "^head\\.weight$", "lm_head.weight" },
    { GF_HUB_RENAME, "^hc_head_fn$", "hc_head.hc_fn" },
    { GF_HUB_RENAME, "^hc_head_base$", "hc_head.hc_base" },
    { GF_HUB_RENAME, "^hc_head_scale$", "hc_head.hc_scale" },
    { GF_HUB_RENAME, "\\.attn_norm\\.", ".input_layernorm." },
    { GF_HUB_RENAME, "\\.ffn_norm\\.", ".post_attention_layernorm." },
    { GF_HUB_RENAME, "\\.hc_attn_fn$", ".attn_hc.fn" },
    { GF_HUB_RENAME, "\\.hc_attn_base$", ".attn_hc.base" },
    { GF_HUB_RENAME, "\\.hc_attn_scale$", ".attn_hc.scale" },
    { GF_HUB_RENAME, "\\.hc_ffn_fn$", ".ffn_hc.fn" },
    { GF_HUB_RENAME, "\\.hc_ffn_base$", ".ffn_hc.base" },
    { GF_HUB_RENAME, "\\.hc_ffn_scale$", ".ffn_hc.scale" },
    { GF_HUB_RENAME, "\\.attn_sink$", ".sinks" },
    { GF_HUB_RENAME, "\\.indexer\\.weights_proj\\.",
      "\\.compressor\\.indexer\\.scorer\\.weights_proj\\." },
    { GF_HUB_RENAME, "\\.indexer\\.wq_b\\.", "\\.compressor\\.indexer\\.q_b_proj\\." },
    { GF_HUB_RENAME, "\\.norm\\.", "\\.kv_norm\\." },
    { GF_HUB_RENAME, "\\.ape$", "\\.position_bias" },
    { GF_HUB_RENAME, "\\.wq_a\\.", ".q_a_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.wq_b\\.", "\\.self_attn\\.q_b_proj\\." },
    { GF_HUB_RENAME, "\\.wkv\\.", ".kv_proj." },
    { GF_HUB_RENAME, "\\.wgate\\.", ".gate_proj." },
    { GF_HUB_RENAME, "\\.wo_a\\.", ".o_a_proj." },
    { GF_HUB_RENAME, "\\.wo_b\\.", ".o_b_proj." },
    { GF_HUB_RENAME, "\\.q_norm\\.", ".q_a_norm." },
    { GF_HUB_RENAME, "\\.gate\\.bias$", ".gate.e_score_correction_bias" },
    { GF_HUB_RENAME, "\\.shared_experts\\.w1\\.", ".shared_experts.gate_proj." },
    { GF_HUB_RENAME, "\\.shared_experts\\.w2\\.", ".shared_experts.down_proj." },
    { GF_HUB_RENAME, "\\.shared_experts\\.w3\\.", ".shared_experts.up_proj." },
    { GF_HUB_SPLIT, "\\.experts.*.w1.weight \\.experts.*.w3.weight",
      "\\.experts.gate_up_proj" },
    { GF_HUB_SPLIT, "\\.experts.*.w2.weight", "\\.experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule ernie4_5_moe[] = {
    { GF_HUB_USE, "qwen2_moe", NULL },
    { GF_HUB_RENAME, "mlp.moe_statics.e_score_correction_bias",
      "mlp.gate.moe_statics.e_score_correction_bias" },
    { 0 },
};

static const struct gf_hub_rule esm[] = {
    { GF_HUB_RENAME, "encoder.layer.*.attention.self.rotary_embeddings.inv_freq",
      "rotary_embeddings.inv_freq" },
    { GF_HUB_RENAME, "LayerNorm.gamma", "LayerNorm.weight" },
    { GF_HUB_RENAME, "LayerNorm.beta", "LayerNorm.bias" },
    { 0 },
};

static const struct gf_hub_rule exaone_moe[] = {
    { GF_HUB_USE, "qwen2_moe", NULL },
    { GF_HUB_RENAME, "mlp.e_score_correction_bias", "mlp.gate.e_score_correction_bias" },
    { 0 },
};

static const struct gf_hub_rule glm5_next[] = {
    { GF_HUB_RENAME, "self_attn\\.f_a_proj\\.", "self_attn.forget_gate.f_a_proj." },
    { GF_HUB_RENAME, "self_attn\\.f_b_proj\\.", "self_attn.forget_gate.f_b_proj." },
    { GF_HUB_RENAME, "self_attn\\.dt_bias", "self_attn.forget_gate.dt_bias" },
    { GF_HUB_RENAME, "self_attn\\.A_log", "self_attn.forget_gate.A_log" },
    { GF_HUB_RENAME, "hc_attn_fn", "attn_hc.fn" },
    { GF_HUB_RENAME, "hc_attn_base", "attn_hc.base" },
    { GF_HUB_RENAME, "hc_attn_scale", "attn_hc.scale" },
    { GF_HUB_RENAME, "hc_ffn_fn", "ffn_hc.fn" },
    { GF_HUB_RENAME, "hc_ffn_base", "ffn_hc.base" },
    { GF_HUB_RENAME, "hc_ffn_scale", "ffn_hc.scale" },
    { GF_HUB_USE, "qwen2_moe", NULL },
    { GF_HUB_CHUNK,
      "self_attn.q_conv1d.weight self_attn.k_conv1d.weight self_attn.v_conv1d.weight",
      "self_attn.conv1d.weight" },
    { 0 },
};

static const struct gf_hub_rule GPTNeoXForCausalLM[] = {
    { GF_HUB_RENAME, "^embed_out\\.", "lm_head." },
    { 0 },
};

static const struct gf_hub_rule granitemoe[] = {
    { GF_HUB_RENAME, "block_sparse_moe\\.input_linear\\.weight",
      "block_sparse_moe.experts.gate_up_proj" },
    { GF_HUB_RENAME, "block_sparse_moe\\.output_linear\\.weight",
      "block_sparse_moe.experts.down_proj" },
    { GF_HUB_RENAME, "block_sparse_moe\\.router\\.layer\\.weight",
      "block_sparse_moe.router.weight" },
    { 0 },
};

static const struct gf_hub_rule gte[] = {
    { GF_HUB_REMOVE, "new", "" },
    { GF_HUB_RENAME, "encoder.layer", "layers" },
    { GF_HUB_RENAME, "attention.o_proj", "self_attn.o_proj" },
    { GF_HUB_RENAME, "attn_ln", "post_attention_layernorm" },
    { GF_HUB_RENAME, "mlp_ln", "post_mlp_layernorm" },
    { GF_HUB_RENAME, "lm_head.norm", "lm_head.layer_norm" },
    { GF_HUB_OTHER, "attention.qkv_proj",
      "self_attn.q_proj self_attn.k_proj self_attn.v_proj" },
    { GF_HUB_OTHER, "mlp.up_gate_proj", "mlp.up_proj mlp.gate_proj" },
    { 0 },
};

static const struct gf_hub_rule hrm_text[] = {
    { GF_HUB_OTHER, "mlp.gate_up_proj.weight", "mlp.gate_proj.weight mlp.up_proj.weight" },
    { GF_HUB_OTHER, "attn.gqkv_proj.weight",
      "self_attn.gate_proj.weight self_attn.q_proj.weight self_attn.k_proj.weight "
      "self_attn.v_proj.weight" },
    { GF_HUB_RENAME, "\\.attn\\.o_proj\\.", ".self_attn.o_proj." },
    { 0 },
};

static const struct gf_hub_rule hy_v3[] = {
    { GF_HUB_USE, "qwen2_moe", NULL },
    { GF_HUB_RENAME, "mlp\\.router\\.gate\\.weight", "mlp.gate.weight" },
    { GF_HUB_RENAME, "mlp\\.expert_bias", "mlp.e_score_correction_bias" },
    { GF_HUB_RENAME, "mlp\\.shared_mlp\\.", "mlp.shared_experts." },
    { 0 },
};

static const struct gf_hub_rule hy_v4[] = {
    { GF_HUB_RENAME, "\\.hc_pre\\.hc_", ".hc_" },
    { GF_HUB_RENAME, "\\.learnable_sink_param$", ".sinks" },
    { GF_HUB_RENAME, "\\.linear_gate", ".gate_proj" },
    { GF_HUB_RENAME, "\\.hc_attn_layer\\.hc_fn", ".attn_hc.fn" },
    { GF_HUB_RENAME, "\\.hc_attn_layer\\.hc_base", ".attn_hc.base" },
    { GF_HUB_RENAME, "\\.hc_attn_layer\\.hc_scale", ".attn_hc.scale" },
    { GF_HUB_RENAME, "\\.hc_mlp_layer\\.hc_fn", ".ffn_hc.fn" },
    { GF_HUB_RENAME, "\\.hc_mlp_layer\\.hc_base", ".ffn_hc.base" },
    { GF_HUB_RENAME, "\\.hc_mlp_layer\\.hc_scale", ".ffn_hc.scale" },
    { GF_HUB_RENAME, "\\.hc_head_fn", ".hc_fn" },
    { GF_HUB_RENAME, "\\.hc_head_base", ".hc_base" },
    { GF_HUB_RENAME, "\\.hc_head_scale", ".hc_scale" },
    { 0 },
};

static const struct gf_hub_rule jamba[] = {
    { GF_HUB_SPLIT,
      "feed_forward.experts.*.gate_proj.weight feed_forward.experts.*.up_proj.weight",
      "feed_forward.experts.gate_up_proj" },
    { GF_HUB_SPLIT, "feed_forward.experts.*.down_proj.weight",
      "feed_forward.experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule jina_embeddings_v3[] = {
    { GF_HUB_RENAME, "emb_ln", "embeddings.LayerNorm" },
    { GF_HUB_RENAME, "encoder.layers", "layers" },
    { GF_HUB_RENAME, "mixer.out_proj", "self_attn.o_proj" },
    { GF_HUB_RENAME, "norm1", "post_attention_layernorm" },
    { GF_HUB_RENAME, "norm2", "post_mlp_layernorm" },
    { GF_HUB_OTHER, "mixer.Wqkv", "self_attn.q_proj self_attn.k_proj self_attn.v_proj" },
    { 0 },
};

static const struct gf_hub_rule kimi_linear[] = {
    { GF_HUB_RENAME, "self_attn\\.f_a_proj\\.", "self_attn.forget_gate.f_a_proj." },
    { GF_HUB_RENAME, "self_attn\\.f_b_proj\\.", "self_attn.forget_gate.f_b_proj." },
    { GF_HUB_RENAME, "self_attn\\.dt_bias", "self_attn.forget_gate.dt_bias" },
    { GF_HUB_RENAME, "self_attn\\.A_log", "self_attn.forget_gate.A_log" },
    { GF_HUB_CHUNK,
      "self_attn.q_conv1d.weight self_attn.k_conv1d.weight self_attn.v_conv1d.weight",
      "self_attn.conv1d.weight" },
    { GF_HUB_RENAME, "\\.block_sparse_moe\\.", "\\.mlp\\." },
    { GF_HUB_SPLIT, "\\.experts.*.w1.weight \\.experts.*.w3.weight",
      "\\.experts.gate_up_proj" },
    { GF_HUB_SPLIT, "\\.experts.*.w2.weight", "\\.experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule laguna[] = {
    { GF_HUB_USE, "qwen2_moe", NULL },
    { GF_HUB_RENAME, "mlp.experts.e_score_correction_bias",
      "mlp.gate.e_score_correction_bias" },
    { GF_HUB_RENAME, "mlp.shared_expert.", "mlp.shared_experts." },
    { 0 },
};

static const struct gf_hub_rule legacy[] = {
    { GF_HUB_RENAME, "LayerNorm.gamma", "LayerNorm.weight" },
    { GF_HUB_RENAME, "LayerNorm.beta", "LayerNorm.bias" },
    { GF_HUB_RENAME, ".weight_g$", ".parametrizations.weight.original0" },
    { GF_HUB_RENAME, ".weight_v$", ".parametrizations.weight.original1" },
    { 0 },
};

static const struct gf_hub_rule lfm2_moe[] = {
    { GF_HUB_SPLIT, "feed_forward.experts.*.w1.weight feed_forward.experts.*.w3.weight",
      "feed_forward.experts.gate_up_proj" },
    { GF_HUB_SPLIT, "feed_forward.experts.*.w2.weight", "feed_forward.experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule mimo_v2_flash[] = {
    { GF_HUB_USE, "qwen2_moe", NULL },
    { GF_HUB_RENAME, "self_attn.attention_sink_bias", "self_attn.sinks" },
    { 0 },
};

static const struct gf_hub_rule minimax_m2[] = {
    { GF_HUB_USE, "mixtral", NULL },
    { GF_HUB_RENAME, ".block_sparse_moe.e_score_correction_bias",
      ".mlp.e_score_correction_bias" },
    { 0 },
};

static const struct gf_hub_rule mixtral[] = {
    { GF_HUB_RENAME, ".block_sparse_moe.", ".mlp." },
    { GF_HUB_SPLIT, ".experts.*.w1.weight .experts.*.w3.weight", ".experts.gate_up_proj" },
    { GF_HUB_SPLIT, ".experts.*.w2.weight", ".experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule MtpModel[] = {
    { GF_HUB_REMOVE, "model", "" },
    { GF_HUB_REMOVE, "mtp", "" },
    { GF_HUB_RENAME, ".shared_head.norm.", ".post_norm." },
    { GF_HUB_RENAME, ".mtp_block.enorm.", ".enorm." },
    { GF_HUB_RENAME, ".mtp_block.hnorm.", ".hnorm." },
    { GF_HUB_RENAME, ".mtp_block.eh_proj.", ".eh_proj." },
    { GF_HUB_RENAME, ".mtp_block.post_norm.", ".post_norm." },
    { GF_HUB_RENAME, "\\.hidden_norm\\.", ".hnorm." },
    { GF_HUB_RENAME, "\\.embed_norm\\.", ".enorm." },
    { GF_HUB_RENAME, "\\.input_proj\\.", ".eh_proj." },
    { GF_HUB_RENAME, "^chain_norm\\.", "shared_post_norm." },
    { GF_HUB_RENAME, "layers\\.(\\d+)\\.transformer_block\\.", "layers.\\1.mtp_block." },
    { 0 },
};

static const struct gf_hub_rule nemotron_h[] = {
    { GF_HUB_RENAME, "backbone.", "model." },
    { GF_HUB_SPLIT, "mixer.experts.*.up_proj.weight", "mixer.experts.up_proj" },
    { GF_HUB_SPLIT, "mixer.experts.*.down_proj.weight", "mixer.experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule nomic_bert[] = {
    { GF_HUB_RENAME, "encoder.layers", "layers" },
    { GF_HUB_RENAME, "emb_ln", "embeddings.LayerNorm" },
    { GF_HUB_RENAME, "attn.out_proj", "self_attn.o_proj" },
    { GF_HUB_RENAME, "fc11", "up_proj" },
    { GF_HUB_RENAME, "fc12", "gate_proj" },
    { GF_HUB_RENAME, "fc2", "down_proj" },
    { GF_HUB_RENAME, "norm1", "post_attention_layernorm" },
    { GF_HUB_RENAME, "norm2", "post_mlp_layernorm" },
    { GF_HUB_OTHER, "attn.Wqkv", "self_attn.q_proj self_attn.k_proj self_attn.v_proj" },
    { 0 },
};

static const struct gf_hub_rule olmo_hybrid[] = {
    { GF_HUB_RENAME, "attention_layer_norm", "input_layernorm" },
    { GF_HUB_RENAME, "feedforward_layer_norm", "post_attention_layernorm" },
    { GF_HUB_CHUNK,
      "linear_attn.q_conv1d.weight linear_attn.k_conv1d.weight linear_attn.v_conv1d.weight",
      "linear_attn.conv1d.weight" },
    { 0 },
};

static const struct gf_hub_rule phimoe[] = {
    { GF_HUB_RENAME, ".block_sparse_moe.", ".mlp." },
    { GF_HUB_RENAME, ".gate.weight", ".router.weight" },
    { GF_HUB_SPLIT, ".experts.*.w1.weight .experts.*.w3.weight", ".experts.gate_up_proj" },
    { GF_HUB_SPLIT, ".experts.*.w2.weight", ".experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule qwen2_moe[] = {
    { GF_HUB_SPLIT, "mlp.experts.*.gate_proj.weight mlp.experts.*.up_proj.weight",
      "mlp.experts.gate_up_proj" },
    { GF_HUB_SPLIT, "mlp.experts.*.down_proj.weight", "mlp.experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule qwen3_5_moe_text[] = {
    { GF_HUB_REMOVE, "language_model", "model" },
    { GF_HUB_USE, "qwen2_moe", NULL },
    { 0 },
};

static const struct gf_hub_rule qwen3_5_text[] = {
    { GF_HUB_REMOVE, "language_model", "model" },
    { 0 },
};

static const struct gf_hub_rule qwen4_exp_text[] = {
    { GF_HUB_REMOVE, "language_model", "model" },
    { GF_HUB_USE, "qwen2_moe", NULL },
    { GF_HUB_SHARDS, "ngram_embedding.shard_*.weight",
      "ngram_embedding.weight split_ngram_parts" },
    { 0 },
};

static const struct gf_hub_rule timesfm2_5[] = {
    { GF_HUB_RENAME, "ff0", "fc1" },
    { GF_HUB_RENAME, "ff1", "fc2" },
    { 0 },
};

const struct gf_hub_family gf_hub_text[] = {
    { "afmoe", qwen2_moe },
    { "axk1", axk1 },
    { "axk2", axk2 },
    { "cohere2_moe", qwen2_moe },
    { "deepseek_v2", qwen2_moe },
    { "deepseek_v3", qwen2_moe },
    { "deepseek_v32", qwen2_moe },
    { "deepseek_v4", deepseek_v4 },
    { "dots1", qwen2_moe },
    { "ernie4_5_moe", ernie4_5_moe },
    { "esm", esm },
    { "exaone_moe", exaone_moe },
    { "flex_olmo", qwen2_moe },
    { "gemma3n_text", qwen3_5_text },
    { "glm4_moe", qwen2_moe },
    { "glm4_moe_lite", qwen2_moe },
    { "glm5_next", glm5_next },
    { "glm5_next_text", glm5_next },
    { "glm_moe_dsa", qwen2_moe },
    { "GPTNeoXForCausalLM", GPTNeoXForCausalLM },
    { "granitemoe", granitemoe },
    { "granitemoehybrid", granitemoe },
    { "granitemoeshared", granitemoe },
    { "gte", gte },
    { "hrm_text", hrm_text },
    { "hunyuan_v1_moe", qwen2_moe },
    { "hy_v3", hy_v3 },
    { "hy_v4", hy_v4 },
    { "jamba", jamba },
    { "jina_embeddings_v3", jina_embeddings_v3 },
    { "kimi_linear", kimi_linear },
    { "laguna", laguna },
    { "legacy", legacy },
    { "lfm2_moe", lfm2_moe },
    { "longcat_flash", qwen2_moe },
    { "mellum", qwen2_moe },
    { "mimo_v2_flash", mimo_v2_flash },
    { "minimax", mixtral },
    { "minimax_m2", minimax_m2 },
    { "mixtral", mixtral },
    { "MtpModel", MtpModel },
    { "nemotron_h", nemotron_h },
    { "nomic_bert", nomic_bert },
    { "olmo_hybrid", olmo_hybrid },
    { "olmoe", qwen2_moe },
    { "phimoe", phimoe },
    { "qwen2_moe", qwen2_moe },
    { "qwen3_5_moe_text", qwen3_5_moe_text },
    { "qwen3_5_text", qwen3_5_text },
    { "qwen3_moe", qwen2_moe },
    { "qwen3_next", qwen2_moe },
    { "qwen4_exp_text", qwen4_exp_text },
    { "solar_open", qwen2_moe },
    { "timesfm2_5", timesfm2_5 },
    { 0 },
};
