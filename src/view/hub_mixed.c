/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub_mixed.c - what the tensors of models with several inputs are called on the hub.
 *
 * Written by tools/hub-tables.py from transformers 5.18.
 */
#include "view/hub_int.h"

static const struct gf_hub_rule altclip[] = {
    { GF_HUB_RENAME, "layer\\.", "layers." },
    { 0 },
};

static const struct gf_hub_rule aria_text[] = {
    { GF_HUB_RENAME, "mlp\\.experts\\.fc1\\.weight", "mlp.experts.gate_up_proj" },
    { GF_HUB_RENAME, "mlp\\.experts\\.fc2\\.weight", "mlp.experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule CLIPTextModel[] = {
    { GF_HUB_REMOVE, "text_model", "" },
    { 0 },
};

static const struct gf_hub_rule CLIPVisionModel[] = {
    { GF_HUB_REMOVE, "vision_model", "" },
    { 0 },
};

static const struct gf_hub_rule cohere_asr[] = {
    { GF_HUB_RENAME, "encoder\\.pre_encode\\.conv\\.", "encoder.subsampling.layers." },
    { GF_HUB_RENAME, "encoder\\.pre_encode\\.out\\.", "encoder.subsampling.linear." },
    { GF_HUB_RENAME, "transf_decoder\\._embedding\\.position_embedding\\.pos_enc",
      "decoder.pos_emb.weight" },
    { GF_HUB_RENAME, "transf_decoder\\._embedding\\.token_embedding",
      "decoder.embed_tokens" },
    { GF_HUB_RENAME, "transf_decoder\\._embedding\\.layer_norm",
      "decoder.embedding_layernorm" },
    { GF_HUB_RENAME, "transf_decoder\\._decoder\\.final_layer_norm", "decoder.norm" },
    { GF_HUB_RENAME, "transf_decoder\\._decoder\\.layers", "decoder.layers" },
    { GF_HUB_RENAME, "encoder_decoder_proj\\.", "decoder.proj." },
    { GF_HUB_RENAME, "encoder\\.(.+)\\.self_attn\\.linear_q",
      "encoder.\\1.self_attn.q_proj" },
    { GF_HUB_RENAME, "encoder\\.(.+)\\.self_attn\\.linear_k",
      "encoder.\\1.self_attn.k_proj" },
    { GF_HUB_RENAME, "encoder\\.(.+)\\.self_attn\\.linear_v",
      "encoder.\\1.self_attn.v_proj" },
    { GF_HUB_RENAME, "encoder\\.(.+)\\.self_attn\\.linear_out",
      "encoder.\\1.self_attn.o_proj" },
    { GF_HUB_RENAME, "encoder\\.(.+)\\.self_attn\\.linear_pos",
      "encoder.\\1.self_attn.relative_k_proj" },
    { GF_HUB_RENAME, "encoder\\.(.+)\\.self_attn\\.pos_bias_u",
      "encoder.\\1.self_attn.bias_u" },
    { GF_HUB_RENAME, "encoder\\.(.+)\\.self_attn\\.pos_bias_v",
      "encoder.\\1.self_attn.bias_v" },
    { GF_HUB_RENAME, "decoder\\.(.+)\\.first_sub_layer\\.query_net",
      "decoder.\\1.self_attn.q_proj" },
    { GF_HUB_RENAME, "decoder\\.(.+)\\.first_sub_layer\\.key_net",
      "decoder.\\1.self_attn.k_proj" },
    { GF_HUB_RENAME, "decoder\\.(.+)\\.first_sub_layer\\.value_net",
      "decoder.\\1.self_attn.v_proj" },
    { GF_HUB_RENAME, "decoder\\.(.+)\\.first_sub_layer\\.out_projection",
      "decoder.\\1.self_attn.o_proj" },
    { GF_HUB_RENAME, "\\.second_sub_layer\\.query_net", ".encoder_attn.q_proj" },
    { GF_HUB_RENAME, "\\.second_sub_layer\\.key_net", ".encoder_attn.k_proj" },
    { GF_HUB_RENAME, "\\.second_sub_layer\\.value_net", ".encoder_attn.v_proj" },
    { GF_HUB_RENAME, "\\.second_sub_layer\\.out_projection", ".encoder_attn.o_proj" },
    { GF_HUB_RENAME, "\\.third_sub_layer\\.dense_in", ".mlp.fc1" },
    { GF_HUB_RENAME, "\\.third_sub_layer\\.dense_out", ".mlp.fc2" },
    { GF_HUB_RENAME, "\\.layer_norm_1\\.", ".input_layernorm." },
    { GF_HUB_RENAME, "\\.layer_norm_2\\.", ".post_attention_layernorm." },
    { GF_HUB_RENAME, "\\.layer_norm_3\\.", ".final_layernorm." },
    { GF_HUB_RENAME, "\\.conv\\.batch_norm", ".conv.norm" },
    { GF_HUB_RENAME, "log_softmax\\.mlp\\.layer0", "proj_out" },
    { 0 },
};

static const struct gf_hub_rule colqwen2[] = {
    { GF_HUB_REMOVE, "model", "vlm" },
    { 0 },
};

static const struct gf_hub_rule cosmos3_edge[] = {
    { GF_HUB_RENAME, "^embed_tokens\\.", "model.language_model.embed_tokens." },
    { GF_HUB_RENAME, "^norm\\.", "model.language_model.norm." },
    { GF_HUB_RENAME, "^layers\\.", "model.language_model.layers." },
    { GF_HUB_RENAME, "\\.self_attn\\.to_q\\.", ".self_attn.q_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.to_k\\.", ".self_attn.k_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.to_v\\.", ".self_attn.v_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.to_out\\.", ".self_attn.o_proj." },
    { GF_HUB_RENAME, "\\.mlp\\.up_proj\\.", ".mlp.fc1." },
    { GF_HUB_RENAME, "\\.mlp\\.down_proj\\.", ".mlp.fc2." },
    { 0 },
};

static const struct gf_hub_rule cosmos3_omni[] = {
    { GF_HUB_RENAME, "^(layers\\.|embed_tokens\\.|norm\\.)", "model.language_model.\\1" },
    { GF_HUB_RENAME,
      "^(blocks\\.|merger\\.|patch_embed\\.|pos_embed\\.|deepstack_merger_list\\.)",
      "model.visual.\\1" },
    { GF_HUB_RENAME, "\\.self_attn\\.to_q\\.", ".self_attn.q_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.to_k\\.", ".self_attn.k_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.to_v\\.", ".self_attn.v_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.to_out\\.", ".self_attn.o_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.norm_q\\.", ".self_attn.q_norm." },
    { GF_HUB_RENAME, "\\.self_attn\\.norm_k\\.", ".self_attn.k_norm." },
    { 0 },
};

static const struct gf_hub_rule deepseek_ocr2[] = {
    { GF_HUB_RENAME, "sam_model\\.blocks\\.(\\d+)\\.norm1\\.",
      "vision_tower.sam_encoder.layers.\\1.layer_norm1." },
    { GF_HUB_RENAME, "sam_model\\.blocks\\.(\\d+)\\.norm2\\.",
      "vision_tower.sam_encoder.layers.\\1.layer_norm2." },
    { GF_HUB_RENAME, "sam_model\\.blocks\\.(\\d+)\\.attn\\.",
      "vision_tower.sam_encoder.layers.\\1.attn." },
    { GF_HUB_RENAME, "sam_model\\.blocks\\.(\\d+)\\.mlp\\.",
      "vision_tower.sam_encoder.layers.\\1.mlp." },
    { GF_HUB_RENAME, "sam_model\\.patch_embed\\.proj\\.",
      "vision_tower.sam_encoder.patch_embed.projection." },
    { GF_HUB_RENAME, "sam_model\\.pos_embed", "vision_tower.sam_encoder.pos_embed" },
    { GF_HUB_RENAME, "sam_model\\.neck\\.0\\.", "vision_tower.sam_encoder.neck.conv1." },
    { GF_HUB_RENAME, "sam_model\\.neck\\.1\\.",
      "vision_tower.sam_encoder.neck.layer_norm1." },
    { GF_HUB_RENAME, "sam_model\\.neck\\.2\\.", "vision_tower.sam_encoder.neck.conv2." },
    { GF_HUB_RENAME, "sam_model\\.neck\\.3\\.",
      "vision_tower.sam_encoder.neck.layer_norm2." },
    { GF_HUB_RENAME, "sam_model\\.net_2\\.", "vision_tower.sam_encoder.proj.conv1." },
    { GF_HUB_RENAME, "sam_model\\.net_3\\.", "vision_tower.sam_encoder.proj.conv2." },
    { GF_HUB_RENAME, "qwen2_model\\.model\\.model\\.layers\\.",
      "vision_tower.vision_encoder.layers." },
    { GF_HUB_RENAME, "qwen2_model\\.model\\.model\\.norm\\.",
      "vision_tower.vision_encoder.norm." },
    { GF_HUB_RENAME, "qwen2_model\\.query_768\\.", "vision_tower.query_768_resolution." },
    { GF_HUB_RENAME, "qwen2_model\\.query_1024\\.", "vision_tower.query_1024_resolution." },
    { GF_HUB_RENAME, "projector\\.layers\\.", "multi_modal_projector." },
    { GF_HUB_RENAME, "view_seperator", "view_separator" },
    { GF_HUB_RENAME, "(^|model\\.)embed_tokens\\.", "\\1language_model.embed_tokens." },
    { GF_HUB_RENAME, "(^|model\\.)layers\\.", "\\1language_model.layers." },
    { GF_HUB_RENAME, "(^|model\\.)norm\\.", "\\1language_model.norm." },
    { GF_HUB_USE, "qwen2_moe", NULL },
    { 0 },
};

static const struct gf_hub_rule emu3[] = {
    { GF_HUB_RENAME, "^text_model.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^text_model", "model.text_model" },
    { GF_HUB_RENAME, "^vqmodel", "model.vqmodel" },
    { 0 },
};

static const struct gf_hub_rule Emu3Model[] = {
    { GF_HUB_RENAME, "^text_model.model", "text_model" },
    { 0 },
};

static const struct gf_hub_rule ernie4_5_vl_moe[] = {
    { GF_HUB_RENAME, "vision_model", "vision_tower" },
    { GF_HUB_RENAME, "spatial_linear.0", "spatial_linear.fc1" },
    { GF_HUB_RENAME, "spatial_linear.2", "spatial_linear.fc2" },
    { GF_HUB_RENAME, "spatial_linear.3", "spatial_linear.ln" },
    { GF_HUB_RENAME, "temporal_linear.0", "temporal_linear.fc1" },
    { GF_HUB_RENAME, "temporal_linear.2", "temporal_linear.fc2" },
    { GF_HUB_RENAME, "temporal_linear.3", "temporal_linear.ln" },
    { GF_HUB_RENAME, "(?<!language_model\\.)embed_tokens", "language_model.embed_tokens" },
    { GF_HUB_RENAME, "(?<!language_model\\.)layers", "language_model.layers" },
    { GF_HUB_RENAME, "(?<!_)(?<!\\w)norm\\.", "language_model.norm." },
    { GF_HUB_OTHER, "mlp.gate.weight_1", "mlp.vision_moe.gate.weight" },
    { GF_HUB_OTHER, "mlp.gate.weight", "mlp.text_moe.gate.weight" },
    { GF_HUB_OTHER, "mlp.moe_statics.e_score_correction_bias",
      "mlp.text_moe.gate.moe_statics.e_score_correction_bias "
      "mlp.vision_moe.gate.moe_statics.e_score_correction_bias" },
    { GF_HUB_OTHER, "experts.*.down_proj.weight",
      "text_moe.experts.down_proj vision_moe.experts.down_proj" },
    { GF_HUB_OTHER, "experts.*.gate_proj.weight experts.*.up_proj.weight",
      "text_moe.experts.gate_up_proj vision_moe.experts.gate_up_proj" },
    { 0 },
};

static const struct gf_hub_rule fuyu[] = {
    { GF_HUB_RENAME, "^language_model.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^language_model", "model.language_model" },
    { GF_HUB_RENAME, "^vision_embed_tokens", "model.vision_embed_tokens" },
    { 0 },
};

static const struct gf_hub_rule gemma4_unified[] = {
    { GF_HUB_RENAME, "vision_embedder\\.patch_ln1", "embed_vision.patch_ln1" },
    { GF_HUB_RENAME, "vision_embedder\\.patch_dense", "embed_vision.patch_dense" },
    { GF_HUB_RENAME, "vision_embedder\\.patch_ln2", "embed_vision.patch_ln2" },
    { GF_HUB_RENAME, "vision_embedder\\.pos_embedding", "embed_vision.pos_embedding" },
    { GF_HUB_RENAME, "vision_embedder\\.pos_norm", "embed_vision.pos_norm" },
    { GF_HUB_RENAME, "embed_vision\\.embedding_projection",
      "embed_vision.multimodal_embedder.embedding_projection" },
    { 0 },
};

static const struct gf_hub_rule granite_speech[] = {
    { GF_HUB_RENAME, "^language_model.model", "model.language_model" },
    { GF_HUB_RENAME, "^language_model.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^encoder", "model.encoder" },
    { GF_HUB_RENAME, "^projector", "model.projector" },
    { 0 },
};

static const struct gf_hub_rule hunyuan_vl[] = {
    { GF_HUB_RENAME, "mlp.dense_h_to_4h", "mlp.fc1" },
    { GF_HUB_RENAME, "mlp.dense_4h_to_h", "mlp.fc2" },
    { GF_HUB_RENAME, "^vit\\.layers\\.(\\d+)\\.input_layernorm\\.",
      "vit.layers.\\1.layer_norm1." },
    { GF_HUB_RENAME, "^vit\\.layers\\.(\\d+)\\.post_attention_layernorm\\.",
      "vit.layers.\\1.layer_norm2." },
    { GF_HUB_RENAME, "perceive\\.proj\\.0\\.", "perceive.proj_conv." },
    { GF_HUB_RENAME, "perceive\\.proj\\.2\\.", "perceive.proj_out." },
    { GF_HUB_RENAME, "perceive\\.", "patch_merger." },
    { GF_HUB_RENAME, "^model(?!\\.(language_model|vit|vision_tower))",
      "model.language_model" },
    { GF_HUB_RENAME, "^model\\.vit", "model.vision_tower" },
    { GF_HUB_RENAME, "^vit", "model.vision_tower" },
    { 0 },
};

static const struct gf_hub_rule hyperclovax_vision_v2[] = {
    { GF_HUB_RENAME, "^model.language_model.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^model.vision_projector", "model.projector" },
    { GF_HUB_REMOVE, "model", "model.language_model" },
    { 0 },
};

static const struct gf_hub_rule inkling_mm_model[] = {
    { GF_HUB_RENAME, "model\\.llm\\.layers", "model.language_model.layers" },
    { GF_HUB_RENAME, "model\\.llm\\.embed_norm\\.weight",
      "model.language_model.embed_tokens.embed_norm.weight" },
    { GF_HUB_RENAME, "model\\.llm\\.embed\\.weight",
      "model.language_model.embed_tokens.weight" },
    { GF_HUB_RENAME, "model\\.llm\\.norm\\.weight", "model.language_model.norm.weight" },
    { GF_HUB_RENAME, "model\\.llm\\.unembed\\.weight", "lm_head.weight" },
    { GF_HUB_RENAME, "model\\.audio\\.", "model.audio_tower." },
    { GF_HUB_RENAME, "model\\.visual", "model.vision_tower" },
    { GF_HUB_RENAME, "vision_tower.layers.linear_(\\d+)",
      "vision_tower.encoder_layers.\\1.projection" },
    { GF_HUB_RENAME, "vision_tower.layers.norm_(\\d+)",
      "vision_tower.encoder_layers.\\1.layer_norm" },
    { GF_HUB_RENAME, "audio_tower.encoder.weight",
      "audio_tower.embed_audio_tokens.embed_audio_tokens.weight" },
    { GF_HUB_RENAME, "audio_tower.final_norm.weight", "audio_tower.norm.weight" },
    { GF_HUB_OTHER, "shared_w13_weight", "gate_proj up_proj" },
    { GF_HUB_RENAME, "shared_w2_weight", "down_proj" },
    { GF_HUB_OTHER, "mlp.experts.w13_weight", "mlp.experts.gate_up_proj" },
    { GF_HUB_RENAME, "mlp.experts.w2_weight", "mlp.experts.down_proj" },
    { GF_HUB_OTHER, "mlp.w13_dn.weight", "mlp.gate_proj.weight mlp.up_proj.weight" },
    { GF_HUB_RENAME, "mlp.w2_md.weight", "mlp.down_proj.weight" },
    { GF_HUB_RENAME, "mlp.gate.bias", "mlp.gate.e_score_correction_bias" },
    { GF_HUB_RENAME, "attn\\.wq_du", "self_attn.q_proj" },
    { GF_HUB_RENAME, "attn\\.wk_dv", "self_attn.k_proj" },
    { GF_HUB_RENAME, "attn\\.wv_dv", "self_attn.v_proj" },
    { GF_HUB_RENAME, "attn\\.wr_du", "self_attn.r_proj" },
    { GF_HUB_RENAME, "attn\\.wo_ud", "self_attn.o_proj" },
    { GF_HUB_RENAME, "\\.attn\\.q_norm", ".self_attn.q_norm" },
    { GF_HUB_RENAME, "\\.attn\\.k_norm", ".self_attn.k_norm" },
    { GF_HUB_RENAME, "\\.attn\\.k_sconv", ".self_attn.k_sconv.conv1d" },
    { GF_HUB_RENAME, "\\.attn\\.v_sconv", ".self_attn.v_sconv.conv1d" },
    { GF_HUB_RENAME, "\\.attn\\.rel_logits_proj", ".self_attn.rel_logits_proj" },
    { GF_HUB_RENAME, "attn_sconv\\.weight$", "attn_sconv.conv1d.weight" },
    { GF_HUB_RENAME, "mlp_sconv\\.weight$", "mlp_sconv.conv1d.weight" },
    { GF_HUB_RENAME, "mlp_norm", "post_attention_layernorm" },
    { GF_HUB_RENAME, "attn_norm", "input_layernorm" },
    { 0 },
};

static const struct gf_hub_rule kimi_k25[] = {
    { GF_HUB_RENAME, "language_model.model", "model.language_model" },
    { GF_HUB_RENAME, "language_model.lm_head", "lm_head" },
    { GF_HUB_OTHER,
      "vision_tower.encoder.blocks.(\\d+).norm0 vision_tower.encoder.blocks.(\\d+).norm1",
      "vision_tower.encoder.blocks.\\1.norm1 vision_tower.encoder.blocks.\\1.norm2" },
    { GF_HUB_OTHER,
      "vision_tower.encoder.blocks.(\\d+).mlp.fc0 "
      "vision_tower.encoder.blocks.(\\d+).mlp.fc1",
      "vision_tower.encoder.blocks.\\1.mlp.fc1 vision_tower.encoder.blocks.\\1.mlp.fc2" },
    { GF_HUB_RENAME, "vision_tower.encoder.blocks.(\\d+).wo",
      "vision_tower.encoder.blocks.\\1.attn.proj" },
    { GF_HUB_RENAME, "vision_tower.encoder", "model.vision_tower" },
    { GF_HUB_RENAME, "mm_projector.proj.0", "model.mm_projector.in_proj" },
    { GF_HUB_RENAME, "mm_projector.proj.2", "model.mm_projector.out_proj" },
    { GF_HUB_RENAME, "blocks", "layers" },
    { GF_HUB_RENAME, "vision_tower.patch_embed.pos_emb.weight",
      "model.vision_tower.patch_embed.pos_emb.position_embeddings" },
    { GF_HUB_OTHER, "wqkv", "attn.q_proj attn.k_proj attn.v_proj" },
    { GF_HUB_USE, "qwen2_moe", NULL },
    { 0 },
};

static const struct gf_hub_rule llava[] = {
    { GF_HUB_RENAME, "^language_model.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^language_model", "model.language_model" },
    { GF_HUB_RENAME, "^vision_tower", "model.vision_tower" },
    { GF_HUB_RENAME, "^multi_modal_projector", "model.multi_modal_projector" },
    { 0 },
};

static const struct gf_hub_rule llava_next[] = {
    { GF_HUB_USE, "llava", NULL },
    { GF_HUB_RENAME, "^image_newline", "model.image_newline" },
    { 0 },
};

static const struct gf_hub_rule LlavaModel[] = {
    { GF_HUB_RENAME, "^language_model.model", "language_model" },
    { 0 },
};

static const struct gf_hub_rule minimax_m3_vl[] = {
    { GF_HUB_RENAME, "^language_model\\.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^language_model\\.model\\.", "model.language_model." },
    { GF_HUB_RENAME, "^vision_tower\\.vision_model\\.embeddings\\.patch_embedding\\.",
      "model.vision_tower.embeddings.proj." },
    { GF_HUB_RENAME, "^vision_tower\\.vision_model\\.encoder\\.layers\\.",
      "model.vision_tower.layers." },
    { GF_HUB_RENAME, "^vision_tower\\.vision_model\\.pre_layrnorm\\.",
      "model.vision_tower.pre_layrnorm." },
    { GF_HUB_RENAME, "^multi_modal_projector\\.linear_1\\.",
      "model.multi_modal_projector.linear_1." },
    { GF_HUB_RENAME, "^multi_modal_projector\\.linear_2\\.",
      "model.multi_modal_projector.linear_2." },
    { GF_HUB_RENAME, "^patch_merge_mlp\\.linear_1\\.",
      "model.multi_modal_projector.merge_linear_1." },
    { GF_HUB_RENAME, "^patch_merge_mlp\\.linear_2\\.",
      "model.multi_modal_projector.merge_linear_2." },
    { GF_HUB_RENAME, "\\.block_sparse_moe\\.", "\\.mlp\\." },
    { GF_HUB_RENAME, "\\.e_score_correction_bias", "\\.gate\\.e_score_correction_bias" },
    { GF_HUB_RENAME, "\\.self_attn\\.index_q_proj\\.", ".self_attn.indexer.q_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.index_k_proj\\.", ".self_attn.indexer.k_proj." },
    { GF_HUB_RENAME, "\\.self_attn\\.index_q_norm\\.", ".self_attn.indexer.q_norm." },
    { GF_HUB_RENAME, "\\.self_attn\\.index_k_norm\\.", ".self_attn.indexer.k_norm." },
    { GF_HUB_SPLIT, "\\.experts.*.w1.weight \\.experts.*.w3.weight",
      "\\.experts.gate_up_proj" },
    { GF_HUB_SPLIT, "\\.experts.*.w2.weight", "\\.experts.down_proj" },
    { GF_HUB_CHUNK, "\\.gate_proj.weight \\.up_proj.weight", "\\.gate_up_proj.weight" },
    { 0 },
};

static const struct gf_hub_rule mllama[] = {
    { GF_HUB_RENAME, "^language_model.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^language_model", "model.language_model" },
    { GF_HUB_RENAME, "^vision_model", "model.vision_model" },
    { GF_HUB_RENAME, "^multi_modal_projector", "model.multi_modal_projector" },
    { 0 },
};

static const struct gf_hub_rule NemotronH_Omni_Reasoning_V3[] = {
    { GF_HUB_RENAME, "^mlp1\\.0\\.", "multi_modal_projector\\.layer_norm\\." },
    { GF_HUB_RENAME, "^mlp1\\.1\\.", "multi_modal_projector\\.linear_1\\." },
    { GF_HUB_RENAME, "^mlp1\\.3\\.", "multi_modal_projector\\.linear_2\\." },
    { GF_HUB_RENAME, "^sound_encoder\\.encoder\\.", "audio_tower\\." },
    { GF_HUB_RENAME, "^sound_projection\\.norm\\.", "embed_audio\\.layer_norm\\." },
    { GF_HUB_RENAME, "^sound_projection\\.linear1\\.", "embed_audio\\.linear_1\\." },
    { GF_HUB_RENAME, "^sound_projection\\.linear2\\.", "embed_audio\\.linear_2\\." },
    { 0 },
};

static const struct gf_hub_rule paddleocr_vl[] = {
    { GF_HUB_RENAME, "^mlp_AR", "model.projector" },
    { GF_HUB_RENAME, "^visual", "model.visual" },
    { GF_HUB_RENAME, "^model(?!(\\.visual|\\.projector|\\.language_model))",
      "model.language_model" },
    { 0 },
};

static const struct gf_hub_rule pi0[] = {
    { GF_HUB_RENAME, "state_proj", "embed_action_time.state_proj" },
    { GF_HUB_RENAME, "action_in_proj", "embed_action_time.action_in_proj" },
    { GF_HUB_RENAME, "action_time_mlp_in", "embed_action_time.action_time_mlp_in" },
    { GF_HUB_RENAME, "action_time_mlp_out", "embed_action_time.action_time_mlp_out" },
    { GF_HUB_RENAME, "^paligemma_with_expert.paligemma.model", "model.vlm" },
    { GF_HUB_RENAME, "^paligemma_with_expert.gemma_expert.model", "model.dit" },
    { GF_HUB_RENAME, "^paligemma_with_expert.gemma_expert.lm_head",
      "model.dit.embed_tokens" },
    { GF_HUB_RENAME, "^paligemma_with_expert.paligemma.lm_head",
      "model.vlm.language_model.embed_tokens" },
    { 0 },
};

static const struct gf_hub_rule qianfan_ocr[] = {
    { GF_HUB_RENAME, "^vision_model\\.", "model\\.vision_tower\\." },
    { GF_HUB_RENAME, "encoder\\.layers\\.", "layers\\." },
    { GF_HUB_RENAME, "\\.ls1", "\\.lambda_1" },
    { GF_HUB_RENAME, "\\.ls2", "\\.lambda_2" },
    { GF_HUB_RENAME, "(layers\\.\\d+)\\.attn\\.proj\\.",
      "\\1.attention.projection_layer." },
    { GF_HUB_RENAME, "\\.norm1\\.", "\\.layernorm_before\\." },
    { GF_HUB_RENAME, "\\.norm2\\.", "\\.layernorm_after\\." },
    { GF_HUB_RENAME, "\\.embeddings\\.class_embedding", "\\.embeddings\\.cls_token" },
    { GF_HUB_RENAME, "\\.embeddings\\.position_embedding",
      "\\.embeddings\\.position_embeddings" },
    { GF_HUB_RENAME, "\\.embeddings\\.patch_embedding\\.",
      "\\.embeddings\\.patch_embeddings\\.projection\\." },
    { GF_HUB_RENAME, "^language_model\\.model\\.", "model\\.language_model\\." },
    { GF_HUB_RENAME, "^language_model\\.lm_head\\.", "lm_head\\." },
    { GF_HUB_RENAME, "^mlp1\\.0\\.", "model\\.multi_modal_projector\\.layer_norm\\." },
    { GF_HUB_RENAME, "^mlp1\\.1\\.", "model\\.multi_modal_projector\\.linear_1\\." },
    { GF_HUB_RENAME, "^mlp1\\.3\\.", "model\\.multi_modal_projector\\.linear_2\\." },
    { GF_HUB_OTHER, "attn.qkv.weight",
      "attention.q_proj.weight attention.k_proj.weight attention.v_proj.weight" },
    { GF_HUB_OTHER, "attn.qkv.bias",
      "attention.q_proj.bias attention.k_proj.bias attention.v_proj.bias" },
    { 0 },
};

static const struct gf_hub_rule qwen2_audio[] = {
    { GF_HUB_RENAME, "^language_model.model", "model.language_model" },
    { GF_HUB_RENAME, "^language_model.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^audio_tower", "model.audio_tower" },
    { GF_HUB_RENAME, "^multi_modal_projector", "model.multi_modal_projector" },
    { 0 },
};

static const struct gf_hub_rule qwen2_moe[] = {
    { GF_HUB_SPLIT, "mlp.experts.*.gate_proj.weight mlp.experts.*.up_proj.weight",
      "mlp.experts.gate_up_proj" },
    { GF_HUB_SPLIT, "mlp.experts.*.down_proj.weight", "mlp.experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule Qwen2VLForConditionalGeneration[] = {
    { GF_HUB_RENAME, "^visual", "model.visual" },
    { GF_HUB_RENAME, "^model(?!\\.(language_model|visual))", "model.language_model" },
    { 0 },
};

static const struct gf_hub_rule Qwen2VLModel[] = {
    { GF_HUB_ADD, "language_model", "model" },
    { 0 },
};

static const struct gf_hub_rule qwen3_vl_moe[] = {
    { GF_HUB_SAME, "mlp.experts.gate_up_proj", "mlp.experts.gate_up_proj" },
    { GF_HUB_SAME, "mlp.experts.down_proj", "mlp.experts.down_proj" },
    { 0 },
};

static const struct gf_hub_rule shieldgemma2[] = {
    { GF_HUB_ADD, "model", "model" },
    { 0 },
};

static const struct gf_hub_rule step3p5_vision[] = {
    { GF_HUB_RENAME, "^conv1\\.weight$", "embeddings.patch_embedding.weight" },
    { GF_HUB_RENAME, "^positional_embedding$", "embeddings.position_embedding.weight" },
    { GF_HUB_RENAME, "^transformer\\.resblocks\\.", "layers." },
    { GF_HUB_RENAME, "^ln_pre\\.", "pre_layernorm." },
    { GF_HUB_RENAME, "^vit_downsampler1\\.", "downsampler1." },
    { GF_HUB_RENAME, "^vit_downsampler2\\.", "downsampler2." },
    { GF_HUB_RENAME, "\\.ls_1\\.gamma$", ".lambda_1" },
    { GF_HUB_RENAME, "\\.ls_2\\.gamma$", ".lambda_2" },
    { GF_HUB_RENAME, "\\.mlp\\.c_fc\\.", ".mlp.fc1." },
    { GF_HUB_RENAME, "\\.mlp\\.c_proj\\.", ".mlp.fc2." },
    { GF_HUB_RENAME, "\\.attn\\.", ".self_attn." },
    { GF_HUB_RENAME, "\\.ln_1\\.", ".layernorm_before." },
    { GF_HUB_RENAME, "\\.ln_2\\.", ".layernorm_after." },
    { GF_HUB_OTHER, "attn\\.in_proj_weight",
      "attn.q_proj.weight attn.k_proj.weight attn.v_proj.weight" },
    { GF_HUB_OTHER, "attn\\.in_proj_bias",
      "attn.q_proj.bias attn.k_proj.bias attn.v_proj.bias" },
    { 0 },
};

static const struct gf_hub_rule step3p7[] = {
    { GF_HUB_RENAME, "^vision_model\\.", "model.vision_model." },
    { GF_HUB_RENAME, "^vit_large_projector\\.", "model.multi_modal_projector." },
    { GF_HUB_RENAME, "^model\\.embed_tokens\\.", "model.language_model.embed_tokens." },
    { GF_HUB_RENAME, "^model\\.layers\\.", "model.language_model.layers." },
    { GF_HUB_RENAME, "^model\\.norm\\.", "model.language_model.norm." },
    { GF_HUB_RENAME, "\\.moe\\.gate\\.weight$", ".mlp.gate.weight" },
    { GF_HUB_RENAME, "\\.moe\\.router_bias$", ".mlp.gate.e_score_correction_bias" },
    { GF_HUB_RENAME, "\\.moe\\.down_proj\\.weight$", ".mlp.experts.down_proj" },
    { GF_HUB_RENAME, "\\.moe\\.down_proj\\.weight_scale_inv$",
      ".mlp.experts.down_proj_scale_inv" },
    { GF_HUB_RENAME, "\\.share_expert\\.", ".mlp.shared_experts." },
    { GF_HUB_OTHER, "moe.gate_proj.weight moe.up_proj.weight", "mlp.experts.gate_up_proj" },
    { 0 },
};

static const struct gf_hub_rule t5gemma2_encoder[] = {
    { GF_HUB_RENAME, "(?<!decoder\\.)(?<!text_model\\.)embed_tokens\\.",
      "text_model.embed_tokens." },
    { GF_HUB_RENAME, "(?<!decoder\\.)(?<!text_model\\.)(?<!layer)(?<!_)norm\\.",
      "text_model.norm." },
    { GF_HUB_RENAME, "(?<!vision_model.encoder\\.)(?<!decoder\\.)(?<!text_model\\.)layers.",
      "text_model.layers." },
    { 0 },
};

static const struct gf_hub_rule tipsv2[] = {
    { GF_HUB_RENAME, "text_encoder", "text_model" },
    { GF_HUB_RENAME, "vision_encoder", "vision_model" },
    { 0 },
};

static const struct gf_hub_rule Tipsv2TextModel[] = {
    { GF_HUB_REMOVE, "text_encoder", "" },
    { GF_HUB_RENAME, "ln_final\\.", "final_layer_norm." },
    { GF_HUB_RENAME, "token_embedding\\.", "embeddings.token_embedding." },
    { GF_HUB_RENAME, "transformer\\.resblocks\\.", "encoder.layers." },
    { GF_HUB_RENAME, "\\.ln_1\\.", ".layer_norm1." },
    { GF_HUB_RENAME, "\\.ln_2\\.", ".layer_norm2." },
    { GF_HUB_RENAME, "\\.attn\\.", ".self_attn." },
    { GF_HUB_RENAME, "\\.mlp\\.c_fc\\.", ".mlp.fc1." },
    { GF_HUB_RENAME, "\\.mlp\\.c_proj\\.", ".mlp.fc2." },
    { GF_HUB_OTHER, "\\.in_proj_weight", ".q_proj.weight .k_proj.weight .v_proj.weight" },
    { GF_HUB_OTHER, "\\.in_proj_bias", ".q_proj.bias .k_proj.bias .v_proj.bias" },
    { 0 },
};

static const struct gf_hub_rule Tipsv2VisionModel[] = {
    { GF_HUB_REMOVE, "vision_encoder", "" },
    { GF_HUB_RENAME, "patch_embed\\.proj\\.", "embeddings.patch_embeddings.projection." },
    { GF_HUB_RENAME, "cls_token", "embeddings.cls_token" },
    { GF_HUB_RENAME, "mask_token", "embeddings.mask_token" },
    { GF_HUB_RENAME, "register_tokens", "embeddings.register_tokens" },
    { GF_HUB_RENAME, "pos_embed", "embeddings.position_embeddings" },
    { GF_HUB_RENAME, "norm\\.", "layernorm." },
    { GF_HUB_RENAME, "blocks\\.", "encoder.layer." },
    { GF_HUB_RENAME, "\\.attn\\.proj\\.", ".attention.o_proj." },
    { GF_HUB_RENAME, "\\.ls1\\.gamma", ".layer_scale1.lambda1" },
    { GF_HUB_RENAME, "\\.ls2\\.gamma", ".layer_scale2.lambda1" },
    { GF_HUB_RENAME, "\\.mlp\\.c_fc\\.", ".mlp.fc1." },
    { GF_HUB_RENAME, "\\.mlp\\.c_proj\\.", ".mlp.fc2." },
    { GF_HUB_RENAME, "\\.mlp\\.w3\\.", ".mlp.down_proj." },
    { GF_HUB_OTHER, "\\.mlp\\.w12\\.weight", ".mlp.gate_proj.weight .mlp.up_proj.weight" },
    { GF_HUB_OTHER, "\\.mlp\\.w12\\.bias", ".mlp.gate_proj.bias .mlp.up_proj.bias" },
    { GF_HUB_OTHER, "\\.attn\\.qkv\\.weight",
      ".attention.q_proj.weight .attention.k_proj.weight .attention.v_proj.weight" },
    { GF_HUB_OTHER, "\\.attn\\.qkv\\.bias",
      ".attention.q_proj.bias .attention.k_proj.bias .attention.v_proj.bias" },
    { 0 },
};

static const struct gf_hub_rule vibevoice_asr[] = {
    { GF_HUB_RENAME, "^language_model.model", "model.language_model" },
    { GF_HUB_RENAME, "^language_model.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^acoustic_tokenizer_encoder", "model.acoustic_tokenizer_encoder" },
    { GF_HUB_RENAME, "^semantic_tokenizer_encoder", "model.semantic_tokenizer_encoder" },
    { GF_HUB_RENAME, "^multi_modal_projector", "model.multi_modal_projector" },
    { 0 },
};

static const struct gf_hub_rule video_llava[] = {
    { GF_HUB_RENAME, "^language_model.lm_head", "lm_head" },
    { GF_HUB_RENAME, "^language_model", "model.language_model" },
    { GF_HUB_RENAME, "^image_tower", "model.image_tower" },
    { GF_HUB_RENAME, "^video_tower", "model.video_tower" },
    { GF_HUB_RENAME, "^multi_modal_projector", "model.multi_modal_projector" },
    { 0 },
};

static const struct gf_hub_rule ViTModel[] = {
    { GF_HUB_RENAME, "encoder\\.layer\\.", "layers." },
    { GF_HUB_USE, "ViTMAEForPreTraining", NULL },
    { 0 },
};

const struct gf_hub_family gf_hub_mixed[] = {
    { "altclip", altclip },
    { "AltCLIPVisionModel", CLIPVisionModel },
    { "aria", llava },
    { "aria_text", aria_text },
    { "AriaModel", LlavaModel },
    { "ASTModel", ViTModel },
    { "audioflamingo3", qwen2_audio },
    { "AudioFlamingo3Model", LlavaModel },
    { "aya_vision", llava },
    { "AyaVisionModel", LlavaModel },
    { "ChineseCLIPVisionModel", CLIPVisionModel },
    { "CLIPSegTextModel", CLIPTextModel },
    { "CLIPSegVisionModel", CLIPVisionModel },
    { "CLIPTextModel", CLIPTextModel },
    { "CLIPVisionModel", CLIPVisionModel },
    { "cohere_asr", cohere_asr },
    { "colqwen2", colqwen2 },
    { "cosmos3_edge", cosmos3_edge },
    { "cosmos3_omni", cosmos3_omni },
    { "deepseek_ocr2", deepseek_ocr2 },
    { "emu3", emu3 },
    { "Emu3Model", Emu3Model },
    { "ernie4_5_vl_moe", ernie4_5_vl_moe },
    { "fuyu", fuyu },
    { "FuyuModel", LlavaModel },
    { "gemma3", llava },
    { "Gemma3Model", LlavaModel },
    { "gemma4_unified", gemma4_unified },
    { "glm4v_moe", qwen2_moe },
    { "glmasr", qwen2_audio },
    { "GlmAsrModel", LlavaModel },
    { "got_ocr2", llava },
    { "GotOcr2Model", LlavaModel },
    { "granite_speech", granite_speech },
    { "granite_speech_plus", granite_speech },
    { "GraniteSpeechModel", LlavaModel },
    { "GraniteSpeechPlusModel", LlavaModel },
    { "hunyuan_vl", hunyuan_vl },
    { "hyperclovax_vision_v2", hyperclovax_vision_v2 },
    { "inkling_mm_model", inkling_mm_model },
    { "internvl", llava },
    { "InternVLModel", LlavaModel },
    { "kimi_k25", kimi_k25 },
    { "llava", llava },
    { "llava_next", llava_next },
    { "llava_next_video", llava_next },
    { "llava_onevision", llava_next },
    { "LlavaModel", LlavaModel },
    { "LlavaNextModel", LlavaModel },
    { "LlavaNextVideoModel", LlavaModel },
    { "LlavaOnevisionModel", LlavaModel },
    { "MetaClip2TextModel", CLIPTextModel },
    { "MetaClip2VisionModel", CLIPVisionModel },
    { "minimax_m3_vl", minimax_m3_vl },
    { "mistral3", llava },
    { "Mistral3Model", LlavaModel },
    { "mlcd", CLIPVisionModel },
    { "mlcd_vision", CLIPVisionModel },
    { "mllama", mllama },
    { "MllamaModel", LlavaModel },
    { "musicflamingo", qwen2_audio },
    { "MusicFlamingoModel", LlavaModel },
    { "NemotronH_Omni_Reasoning_V3", NemotronH_Omni_Reasoning_V3 },
    { "paddleocr_vl", paddleocr_vl },
    { "paligemma", llava },
    { "PaliGemmaModel", LlavaModel },
    { "pi0", pi0 },
    { "pp_chart2table", llava },
    { "PPChart2TableModel", LlavaModel },
    { "qianfan_ocr", qianfan_ocr },
    { "Qwen2_5_VLForConditionalGeneration", Qwen2VLForConditionalGeneration },
    { "Qwen2_5_VLModel", Qwen2VLModel },
    { "qwen2_audio", qwen2_audio },
    { "Qwen2AudioModel", LlavaModel },
    { "Qwen2VLForConditionalGeneration", Qwen2VLForConditionalGeneration },
    { "Qwen2VLModel", Qwen2VLModel },
    { "qwen3_omni_moe", qwen2_moe },
    { "qwen3_omni_moe_thinker", qwen2_moe },
    { "qwen3_vl_moe", qwen3_vl_moe },
    { "shieldgemma2", shieldgemma2 },
    { "Siglip2TextModel", CLIPTextModel },
    { "Siglip2VisionModel", CLIPVisionModel },
    { "SiglipTextModel", CLIPTextModel },
    { "SiglipVisionModel", CLIPVisionModel },
    { "step3p5_vision", step3p5_vision },
    { "step3p7", step3p7 },
    { "t5gemma2_encoder", t5gemma2_encoder },
    { "tipsv2", tipsv2 },
    { "Tipsv2TextModel", Tipsv2TextModel },
    { "Tipsv2VisionBackbone", Tipsv2VisionModel },
    { "Tipsv2VisionModel", Tipsv2VisionModel },
    { "vibevoice_asr", vibevoice_asr },
    { "VibeVoiceAsrModel", LlavaModel },
    { "video_llava", video_llava },
    { "VideoLlavaModel", LlavaModel },
    { "vipllava", llava },
    { "VipLlavaModel", LlavaModel },
    { "voxtral", qwen2_audio },
    { "voxtral_realtime", qwen2_audio },
    { "VoxtralModel", LlavaModel },
    { "VoxtralRealtimeModel", LlavaModel },
    { "xCLIPTextModel", CLIPTextModel },
    { "xCLIPVisionModel", CLIPVisionModel },
    { 0 },
};
