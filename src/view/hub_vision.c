/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub_vision.c - what vision models' tensors are called on the hub.
 *
 * Written by tools/hub-tables.py from transformers 5.18.
 */
#include "view/hub_int.h"

static const struct gf_hub_rule BeitBackbone[] = {
    { GF_HUB_RENAME, "^fpn1\\.0\\.", "fpn.fpn1.conv_transpose1." },
    { GF_HUB_RENAME, "^fpn1\\.1\\.", "fpn.fpn1.normalization." },
    { GF_HUB_RENAME, "^fpn1\\.3\\.", "fpn.fpn1.conv_transpose2." },
    { GF_HUB_RENAME, "^fpn2\\.0\\.", "fpn.fpn2." },
    { GF_HUB_RENAME, "^encoder\\.layer\\.", "beit.encoder.layer." },
    { GF_HUB_RENAME, "^embeddings\\.", "beit.embeddings." },
    { GF_HUB_USE, "ViTMAEForPreTraining", NULL },
    { 0 },
};

static const struct gf_hub_rule BeitForSemanticSegmentation[] = {
    { GF_HUB_RENAME, "(?<!psp_modules\\.[0-9]\\.1\\.)bn\\.", "normalization." },
    { GF_HUB_RENAME, "(?<!psp_modules\\.[0-9]\\.1\\.)conv\\.weight", "convolution.weight" },
    { GF_HUB_RENAME, "^fpn1\\.0\\.", "fpn.fpn1.conv_transpose1." },
    { GF_HUB_RENAME, "^fpn1\\.1\\.", "fpn.fpn1.normalization." },
    { GF_HUB_RENAME, "^fpn1\\.3\\.", "fpn.fpn1.conv_transpose2." },
    { GF_HUB_RENAME, "^fpn2\\.0\\.", "fpn.fpn2." },
    { GF_HUB_RENAME, "decode_head.bottleneck.", "decode_head.psp_bottleneck." },
    { GF_HUB_RENAME, "decode_head\\.psp_modules\\.(\\d+)\\.1\\.conv\\.weight",
      "decode_head.psp_modules.blocks.\\1.conv.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.psp_modules\\.(\\d+)\\.1\\.bn\\.",
      "decode_head.psp_modules.blocks.\\1.conv.normalization." },
    { 0 },
};

static const struct gf_hub_rule BeitModel[] = {
    { GF_HUB_RENAME, "encoder\\.layer\\.", "layers." },
    { GF_HUB_USE, "ViTMAEForPreTraining", NULL },
    { GF_HUB_RENAME, "encoder.relative_position_bias", "shared_position_bias" },
    { GF_HUB_RENAME,
      "attention.attention.relative_position_bias.relative_position_bias_table",
      "relative_position_bias.relative_position_bias_table" },
    { 0 },
};

static const struct gf_hub_rule ConditionalDetrModel[] = {
    { GF_HUB_RENAME, "backbone.conv_encoder", "backbone" },
    { GF_HUB_RENAME, "self_attn.out_proj", "self_attn.o_proj" },
    { GF_HUB_RENAME, "encoder_attn.out_proj", "encoder_attn.o_proj" },
    { GF_HUB_USE, "maskformer", NULL },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).sa_qcontent_proj",
      "decoder.layers.\\1.self_attn.q_content_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).sa_qpos_proj",
      "decoder.layers.\\1.self_attn.q_pos_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).sa_kcontent_proj",
      "decoder.layers.\\1.self_attn.k_content_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).sa_kpos_proj",
      "decoder.layers.\\1.self_attn.k_pos_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).sa_v_proj",
      "decoder.layers.\\1.self_attn.v_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).ca_qcontent_proj",
      "decoder.layers.\\1.encoder_attn.q_content_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).ca_qpos_proj",
      "decoder.layers.\\1.encoder_attn.q_pos_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).ca_kcontent_proj",
      "decoder.layers.\\1.encoder_attn.k_content_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).ca_kpos_proj",
      "decoder.layers.\\1.encoder_attn.k_pos_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).ca_v_proj",
      "decoder.layers.\\1.encoder_attn.v_proj" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).ca_qpos_sine_proj",
      "decoder.layers.\\1.encoder_attn.q_pos_sine_proj" },
    { 0 },
};

static const struct gf_hub_rule d_fine[] = {
    { GF_HUB_RENAME, "out_proj", "o_proj" },
    { GF_HUB_RENAME, "layers.(\\d+).fc1", "layers.\\1.mlp.layers.0" },
    { GF_HUB_RENAME, "layers.(\\d+).fc2", "layers.\\1.mlp.layers.1" },
    { GF_HUB_RENAME, "encoder.encoder.(\\d+).layers", "encoder.aifi.\\1.layers" },
    { 0 },
};

static const struct gf_hub_rule deformable_detr[] = {
    { GF_HUB_RENAME, "backbone.conv_encoder", "backbone" },
    { GF_HUB_RENAME, "self_attn.out_proj", "self_attn.o_proj" },
    { GF_HUB_USE, "maskformer", NULL },
    { 0 },
};

static const struct gf_hub_rule DetrForSegmentation[] = {
    { GF_HUB_RENAME, "bbox_attention.q_linear", "bbox_attention.q_proj" },
    { GF_HUB_RENAME, "bbox_attention.k_linear", "bbox_attention.k_proj" },
    { GF_HUB_RENAME, "mask_head.lay1", "mask_head.conv1.conv" },
    { GF_HUB_RENAME, "mask_head.gn1", "mask_head.conv1.norm" },
    { GF_HUB_RENAME, "mask_head.lay2", "mask_head.conv2.conv" },
    { GF_HUB_RENAME, "mask_head.gn2", "mask_head.conv2.norm" },
    { GF_HUB_RENAME, "mask_head.adapter1", "mask_head.fpn_stages.0.fpn_adapter" },
    { GF_HUB_RENAME, "mask_head.lay3", "mask_head.fpn_stages.0.refine.conv" },
    { GF_HUB_RENAME, "mask_head.gn3", "mask_head.fpn_stages.0.refine.norm" },
    { GF_HUB_RENAME, "mask_head.adapter2", "mask_head.fpn_stages.1.fpn_adapter" },
    { GF_HUB_RENAME, "mask_head.lay4", "mask_head.fpn_stages.1.refine.conv" },
    { GF_HUB_RENAME, "mask_head.gn4", "mask_head.fpn_stages.1.refine.norm" },
    { GF_HUB_RENAME, "mask_head.adapter3", "mask_head.fpn_stages.2.fpn_adapter" },
    { GF_HUB_RENAME, "mask_head.lay5", "mask_head.fpn_stages.2.refine.conv" },
    { GF_HUB_RENAME, "mask_head.gn5", "mask_head.fpn_stages.2.refine.norm" },
    { GF_HUB_RENAME, "mask_head.out_lay", "mask_head.output_conv" },
    { 0 },
};

static const struct gf_hub_rule DetrModel[] = {
    { GF_HUB_RENAME, "backbone.conv_encoder", "backbone" },
    { GF_HUB_RENAME, "out_proj", "o_proj" },
    { GF_HUB_USE, "maskformer", NULL },
    { 0 },
};

static const struct gf_hub_rule Dinov2Model[] = {
    { GF_HUB_RENAME, "attention.attention.query", "attention.q_proj" },
    { GF_HUB_RENAME, "attention.attention.key", "attention.k_proj" },
    { GF_HUB_RENAME, "attention.attention.value", "attention.v_proj" },
    { GF_HUB_RENAME, "attention.output.dense", "attention.o_proj" },
    { GF_HUB_OTHER, "mlp.weights_in.weight", "mlp.gate_proj.weight mlp.up_proj.weight" },
    { GF_HUB_OTHER, "mlp.weights_in.bias", "mlp.gate_proj.bias mlp.up_proj.bias" },
    { GF_HUB_RENAME, "mlp.weights_out", "mlp.down_proj" },
    { 0 },
};

static const struct gf_hub_rule dinov3_convnext[] = {
    { GF_HUB_RENAME, "(?<!model\\.)stages", "model.stages" },
    { 0 },
};

static const struct gf_hub_rule dinov3_vit[] = {
    { GF_HUB_RENAME, "(?<!model\\.)layer.", "model.layer." },
    { 0 },
};

static const struct gf_hub_rule lw_detr[] = {
    { GF_HUB_RENAME, "attention.attention.query", "attention.q_proj" },
    { GF_HUB_RENAME, "attention.attention.key", "attention.k_proj" },
    { GF_HUB_RENAME, "attention.attention.value", "attention.v_proj" },
    { GF_HUB_RENAME, "attention.output", "attention.o_proj" },
    { 0 },
};

static const struct gf_hub_rule maskformer[] = {
    { GF_HUB_RENAME, "layers.(\\d+).fc1", "layers.\\1.mlp.fc1" },
    { GF_HUB_RENAME, "layers.(\\d+).fc2", "layers.\\1.mlp.fc2" },
    { 0 },
};

static const struct gf_hub_rule pixio[] = {
    { GF_HUB_RENAME, "encoder\\.layer\\.", "layers." },
    { GF_HUB_USE, "ViTMAEForPreTraining", NULL },
    { GF_HUB_RENAME, "norm1", "layernorm_before" },
    { GF_HUB_RENAME, "norm2", "layernorm_after" },
    { GF_HUB_RENAME, "^encoder\\.", "pixio." },
    { 0 },
};

static const struct gf_hub_rule radio[] = {
    { GF_HUB_RENAME, "radio_model.model.patch_generator.video_embedder",
      "embeddings.video_patch_projection" },
    { GF_HUB_RENAME, "radio_model.model.patch_generator.embedder",
      "embeddings.patch_projection" },
    { GF_HUB_RENAME, "radio_model.model.patch_generator.pos_embed",
      "embeddings.position_embedding" },
    { GF_HUB_RENAME, "radio_model.model.patch_generator.cls_token.token",
      "embeddings.cls_register_token" },
    { GF_HUB_RENAME, "radio_model.model.blocks", "encoder.layer" },
    { GF_HUB_RENAME, "attn.proj", "attention.o_proj" },
    { GF_HUB_RENAME, "radio_model.input_conditioner", "input_conditioner" },
    { GF_HUB_RENAME, "radio_model.summary_idxs", "summary_idxs" },
    { GF_HUB_OTHER, "attn.qkv", "attention.q_proj attention.k_proj attention.v_proj" },
    { 0 },
};

static const struct gf_hub_rule RfDetrForInstanceSegmentation[] = {
    { GF_HUB_RENAME, "^(?!segmentation_head)", "model." },
    { GF_HUB_RENAME, "segmentation_head\\.query_features_block\\.layers\\.0",
      "query_features_block.mlp.fc1" },
    { GF_HUB_RENAME, "segmentation_head\\.query_features_block\\.layers\\.2",
      "query_features_block.mlp.fc2" },
    { GF_HUB_RENAME, "segmentation_head\\.query_features_block\\.norm_in",
      "query_features_block.norm" },
    { GF_HUB_RENAME, "segmentation_head\\.blocks\\.(\\d+)\\.norm", "blocks.\\1.layernorm" },
    { GF_HUB_RENAME, "segmentation_head\\.blocks\\.(\\d+)\\.dwconv",
      "blocks.\\1.depthwise_conv" },
    { GF_HUB_RENAME, "segmentation_head\\.blocks\\.(\\d+)\\.pwconv1",
      "blocks.\\1.pointwise_conv" },
    { GF_HUB_RENAME, "segmentation_head\\.spatial_features_proj", "spatial_features_proj" },
    { GF_HUB_RENAME, "segmentation_head\\.query_features_proj", "query_features_proj" },
    { GF_HUB_RENAME, "segmentation_head\\.bias", "segmentation_bias" },
    { 0 },
};

static const struct gf_hub_rule RfDetrForObjectDetection[] = {
    { GF_HUB_RENAME, "^", "model." },
    { 0 },
};

static const struct gf_hub_rule RfDetrModel[] = {
    { GF_HUB_RENAME, "backbone.0.encoder.encoder", "backbone.backbone" },
    { GF_HUB_RENAME, "backbone.0.projector", "backbone.projector" },
    { GF_HUB_RENAME, "projector.stages.0.0.cv1.conv",
      "projector.projector_layer.conv1.conv" },
    { GF_HUB_RENAME, "projector.stages.0.0.cv1.bn",
      "projector.projector_layer.conv1.norm" },
    { GF_HUB_RENAME, "projector.stages.0.0.cv2.conv",
      "projector.projector_layer.conv2.conv" },
    { GF_HUB_RENAME, "projector.stages.0.0.cv2.bn",
      "projector.projector_layer.conv2.norm" },
    { GF_HUB_RENAME, "projector.stages.0.1", "projector.layer_norm" },
    { GF_HUB_RENAME, "projector.stages.0.0.m.(\\d+).cv1.conv",
      "projector.projector_layer.bottlenecks.\\1.conv1.conv" },
    { GF_HUB_RENAME, "projector.stages.0.0.m.(\\d+).cv1.bn",
      "projector.projector_layer.bottlenecks.\\1.conv1.norm" },
    { GF_HUB_RENAME, "projector.stages.0.0.m.(\\d+).cv2.conv",
      "projector.projector_layer.bottlenecks.\\1.conv2.conv" },
    { GF_HUB_RENAME, "projector.stages.0.0.m.(\\d+).cv2.bn",
      "projector.projector_layer.bottlenecks.\\1.conv2.norm" },
    { GF_HUB_RENAME, "transformer.decoder", "decoder" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).norm1",
      "decoder.layers.\\1.self_attn_layer_norm" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).norm2",
      "decoder.layers.\\1.cross_attn_layer_norm" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).linear1", "decoder.layers.\\1.mlp.fc1" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).linear2", "decoder.layers.\\1.mlp.fc2" },
    { GF_HUB_RENAME, "decoder.layers.(\\d+).norm3", "decoder.layers.\\1.layer_norm" },
    { GF_HUB_RENAME, "decoder.norm", "decoder.layernorm" },
    { GF_HUB_RENAME, "^transformer\\.enc_output_norm", "enc_output_norm" },
    { GF_HUB_RENAME, "^transformer\\.enc_output", "enc_output" },
    { GF_HUB_RENAME, "transformer.enc_out_class_embed", "enc_out_class_embed" },
    { GF_HUB_RENAME, "transformer.enc_out_bbox_embed", "enc_out_bbox_embed" },
    { GF_HUB_RENAME, "refpoint_embed\\.weight", "reference_point_embed.weight" },
    { GF_HUB_RENAME, "attention.attention.query", "attention.q_proj" },
    { GF_HUB_RENAME, "attention.attention.key", "attention.k_proj" },
    { GF_HUB_RENAME, "attention.attention.value", "attention.v_proj" },
    { GF_HUB_RENAME, "attention.output.dense", "attention.o_proj" },
    { GF_HUB_RENAME, "self_attn.out_proj", "self_attn.o_proj" },
    { GF_HUB_OTHER, "self_attn.in_proj_bias",
      "self_attn.q_proj.bias self_attn.k_proj.bias self_attn.v_proj.bias" },
    { GF_HUB_OTHER, "self_attn.in_proj_weight",
      "self_attn.q_proj.weight self_attn.k_proj.weight self_attn.v_proj.weight" },
    { 0 },
};

static const struct gf_hub_rule rt_detr[] = {
    { GF_HUB_RENAME, "out_proj", "o_proj" },
    { GF_HUB_USE, "maskformer", NULL },
    { GF_HUB_RENAME, "encoder.encoder.(\\d+).layers", "encoder.aifi.\\1.layers" },
    { 0 },
};

static const struct gf_hub_rule sam3_tracker[] = {
    { GF_HUB_RENAME, "detector_model.vision_encoder.backbone.",
      "vision_encoder.backbone." },
    { GF_HUB_RENAME, "tracker_neck.", "vision_encoder.neck." },
    { GF_HUB_RENAME, "tracker_model.(.+)", "\\1" },
    { 0 },
};

static const struct gf_hub_rule sapiens2[] = {
    { GF_HUB_RENAME, "^cls_token$", "embeddings.cls_token" },
    { GF_HUB_RENAME, "^storage_tokens$", "embeddings.register_tokens" },
    { GF_HUB_RENAME, "^patch_embed\\.projection\\.", "embeddings.patch_embeddings." },
    { GF_HUB_RENAME, "blocks\\.(\\d+)\\.", "model.layer.\\1." },
    { GF_HUB_RENAME, "attn\\.proj\\.", "attention.o_proj." },
    { GF_HUB_RENAME, "attn\\.wq\\.", "attention.q_proj." },
    { GF_HUB_RENAME, "attn\\.wk\\.", "attention.k_proj." },
    { GF_HUB_RENAME, "attn\\.wv\\.", "attention.v_proj." },
    { GF_HUB_RENAME, "attn\\.q_norm\\.", "attention.q_norm." },
    { GF_HUB_RENAME, "attn\\.k_norm\\.", "attention.k_norm." },
    { GF_HUB_RENAME, "attn\\.gamma\\.weight$", "layer_scale1.lambda1" },
    { GF_HUB_RENAME, "ffn\\.w3\\.", "mlp.down_proj." },
    { GF_HUB_RENAME, "\\.ln1\\.", ".norm1." },
    { GF_HUB_RENAME, "\\.ln2\\.", ".norm2." },
    { GF_HUB_RENAME, "^ln1\\.", "norm." },
    { GF_HUB_OTHER, "ffn\\.w12\\.weight", "mlp.gate_proj.weight mlp.up_proj.weight" },
    { GF_HUB_OTHER, "ffn\\.w12\\.bias", "mlp.gate_proj.bias mlp.up_proj.bias" },
    { 0 },
};

static const struct gf_hub_rule Sapiens2ForImageMatting[] = {
    { GF_HUB_RENAME, "^backbone\\.", "model." },
    { GF_HUB_RENAME, "decode_head\\.input_conv\\.0\\.(weight|bias)",
      "decode_head.input_conv.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.upsample_blocks\\.(\\d+)\\.0\\.weight",
      "decode_head.upsample_layers.\\1.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.upsample_blocks\\.(\\d+)\\.0\\.bias",
      "decode_head.upsample_layers.\\1.convolution.bias" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.0\\.(weight|bias)",
      "decode_head.conv_layers.0.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.3\\.(weight|bias)",
      "decode_head.conv_layers.1.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.6\\.(weight|bias)",
      "decode_head.conv_layers.2.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_matting\\.", "decode_head.predictor." },
    { 0 },
};

static const struct gf_hub_rule Sapiens2ForNormalEstimation[] = {
    { GF_HUB_RENAME, "^backbone\\.", "model." },
    { GF_HUB_RENAME, "decode_head\\.input_conv\\.0\\.(weight|bias)",
      "decode_head.input_conv.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.upsample_blocks\\.(\\d+)\\.0\\.weight",
      "decode_head.upsample_layers.\\1.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.upsample_blocks\\.(\\d+)\\.0\\.bias",
      "decode_head.upsample_layers.\\1.convolution.bias" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.0\\.(weight|bias)",
      "decode_head.conv_layers.0.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.3\\.(weight|bias)",
      "decode_head.conv_layers.1.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.6\\.(weight|bias)",
      "decode_head.conv_layers.2.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_normal\\.", "decode_head.predictor." },
    { 0 },
};

static const struct gf_hub_rule Sapiens2ForPointmapEstimation[] = {
    { GF_HUB_RENAME, "^backbone\\.", "model." },
    { GF_HUB_RENAME, "decode_head\\.input_conv\\.0\\.(weight|bias)",
      "decode_head.input_conv.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.upsample_blocks\\.(\\d+)\\.0\\.weight",
      "decode_head.upsample_layers.\\1.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.upsample_blocks\\.(\\d+)\\.0\\.bias",
      "decode_head.upsample_layers.\\1.convolution.bias" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.0\\.(weight|bias)",
      "decode_head.conv_layers.0.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.3\\.(weight|bias)",
      "decode_head.conv_layers.1.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.6\\.(weight|bias)",
      "decode_head.conv_layers.2.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_pointmap\\.", "decode_head.predictor." },
    { GF_HUB_RENAME, "decode_head\\.scale_conv_layers\\.0\\.weight",
      "scale_head.conv_layers.0.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.scale_conv_layers\\.0\\.bias",
      "scale_head.conv_layers.0.convolution.bias" },
    { GF_HUB_RENAME, "decode_head\\.scale_conv_layers\\.3\\.weight",
      "scale_head.conv_layers.1.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.scale_conv_layers\\.3\\.bias",
      "scale_head.conv_layers.1.convolution.bias" },
    { GF_HUB_RENAME, "decode_head\\.scale_conv_layers\\.6\\.weight",
      "scale_head.conv_layers.2.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.scale_conv_layers\\.6\\.bias",
      "scale_head.conv_layers.2.convolution.bias" },
    { GF_HUB_RENAME, "decode_head\\.scale_final_layer\\.1\\.",
      "scale_head.predictor.block1.layers.0." },
    { GF_HUB_RENAME, "decode_head\\.scale_final_layer\\.3\\.",
      "scale_head.predictor.block2.layers.0." },
    { GF_HUB_RENAME, "decode_head\\.scale_final_layer\\.5\\.",
      "scale_head.predictor.proj." },
    { 0 },
};

static const struct gf_hub_rule Sapiens2ForPoseEstimation[] = {
    { GF_HUB_RENAME, "^backbone\\.", "model." },
    { GF_HUB_RENAME, "decode_head\\.deconv_layers\\.0\\.weight",
      "decode_head.upsample_layers.0.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.deconv_layers\\.3\\.weight",
      "decode_head.upsample_layers.1.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.0\\.(weight|bias)",
      "decode_head.conv_layers.0.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.3\\.(weight|bias)",
      "decode_head.conv_layers.1.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.6\\.(weight|bias)",
      "decode_head.conv_layers.2.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_pose\\.", "decode_head.predictor." },
    { 0 },
};

static const struct gf_hub_rule Sapiens2ForSemanticSegmentation[] = {
    { GF_HUB_RENAME, "^backbone\\.", "model." },
    { GF_HUB_RENAME, "decode_head\\.deconv_layers\\.0\\.weight",
      "decode_head.upsample_layers.0.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.deconv_layers\\.3\\.weight",
      "decode_head.upsample_layers.1.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.deconv_layers\\.6\\.weight",
      "decode_head.upsample_layers.2.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.deconv_layers\\.9\\.weight",
      "decode_head.upsample_layers.3.convolution.weight" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.0\\.(weight|bias)",
      "decode_head.conv_layers.0.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_layers\\.3\\.(weight|bias)",
      "decode_head.conv_layers.1.convolution.\\1" },
    { GF_HUB_RENAME, "decode_head\\.conv_seg\\.", "decode_head.predictor." },
    { 0 },
};

static const struct gf_hub_rule SegformerForSemanticSegmentation[] = {
    { GF_HUB_RENAME, "decode_head.linear_c", "decode_head.linear_projections" },
    { 0 },
};

static const struct gf_hub_rule SegformerModel[] = {
    { GF_HUB_RENAME, "encoder.patch_embeddings.(\\d+).", "stages.\\1.patch_embeddings." },
    { GF_HUB_RENAME, "encoder.block.(\\d+).", "stages.\\1.blocks." },
    { GF_HUB_RENAME, "encoder.layer_norm.(\\d+)", "stages.\\1.layer_norm" },
    { GF_HUB_RENAME, "attention.self.query", "attention.q_proj" },
    { GF_HUB_RENAME, "attention.self.key", "attention.k_proj" },
    { GF_HUB_RENAME, "attention.self.value", "attention.v_proj" },
    { GF_HUB_RENAME, "attention.self.sr",
      "attention.sequence_reduction.sequence_reduction" },
    { GF_HUB_RENAME, "attention.self.layer_norm",
      "attention.sequence_reduction.layer_norm" },
    { GF_HUB_RENAME, "attention.output.dense", "attention.o_proj" },
    { GF_HUB_RENAME, "mlp.dense1", "mlp.fc1" },
    { GF_HUB_RENAME, "mlp.dense2", "mlp.fc2" },
    { GF_HUB_RENAME, "layer_norm_1", "layernorm_before" },
    { GF_HUB_RENAME, "layer_norm_2", "layernorm_after" },
    { 0 },
};

static const struct gf_hub_rule swin[] = {
    { GF_HUB_RENAME, "attention.self.query", "attention.q_proj" },
    { GF_HUB_RENAME, "attention.self.key", "attention.k_proj" },
    { GF_HUB_RENAME, "attention.self.value", "attention.v_proj" },
    { GF_HUB_RENAME, "attention.self.relative_position_bias_table",
      "attention.relative_position_bias.relative_position_bias_table" },
    { GF_HUB_RENAME, "attention.output.dense", "attention.o_proj" },
    { GF_HUB_RENAME, "intermediate.dense", "mlp.fc1" },
    { GF_HUB_RENAME, "output.dense", "mlp.fc2" },
    { 0 },
};

static const struct gf_hub_rule SwinBackbone[] = {
    { GF_HUB_RENAME, "^encoder\\.", "swin.encoder." },
    { GF_HUB_RENAME, "^embeddings\\.", "swin.embeddings." },
    { 0 },
};

static const struct gf_hub_rule timm_wrapper[] = {
    { GF_HUB_ADD, "timm_model", "" },
    { 0 },
};

static const struct gf_hub_rule tipsv2_dpt[] = {
    { GF_HUB_RENAME, "vision_encoder", "backbone" },
    { GF_HUB_RENAME, "head\\.reassemble\\.readout_projects\\.(\\d+)",
      "neck.reassemble_stage.readout_projects.\\1.layers.0" },
    { GF_HUB_RENAME, "head\\.reassemble\\.out_projections\\.(\\d+)\\.",
      "neck.reassemble_stage.layers.\\1.projection." },
    { GF_HUB_RENAME, "head\\.reassemble\\.resize_layers\\.(\\d+)\\.",
      "neck.reassemble_stage.layers.\\1.resize." },
    { GF_HUB_RENAME, "head\\.fusion_blocks\\.(\\d+)\\.out_conv\\.",
      "neck.fusion_stage.layers.\\1.projection." },
    { GF_HUB_RENAME, "head\\.fusion_blocks\\.(\\d+)\\.main_unit\\.conv1\\.",
      "neck.fusion_stage.layers.\\1.residual_layer2.convolution1." },
    { GF_HUB_RENAME, "head\\.fusion_blocks\\.(\\d+)\\.main_unit\\.conv2\\.",
      "neck.fusion_stage.layers.\\1.residual_layer2.convolution2." },
    { GF_HUB_RENAME, "head\\.fusion_blocks\\.(\\d+)\\.residual_unit\\.conv1\\.",
      "neck.fusion_stage.layers.\\1.residual_layer1.convolution1." },
    { GF_HUB_RENAME, "head\\.fusion_blocks\\.(\\d+)\\.residual_unit\\.conv2\\.",
      "neck.fusion_stage.layers.\\1.residual_layer1.convolution2." },
    { GF_HUB_RENAME, "head\\.convs", "neck.convs" },
    { GF_HUB_RENAME, "head\\.project", "decoder.project" },
    { GF_HUB_RENAME, "depth_head\\.depth_head\\.", "depth_decoder.head." },
    { GF_HUB_RENAME, "normals_head\\.normals_head\\.", "normals_decoder.head." },
    { GF_HUB_RENAME, "segmentation_head\\.segmentation_head\\.",
      "segmentation_decoder.head." },
    { 0 },
};

static const struct gf_hub_rule Tipsv2DptForDepthEstimation[] = {
    { GF_HUB_RENAME, "vision_encoder", "backbone" },
    { GF_HUB_RENAME, "depth_head\\.reassemble\\.readout_projects\\.(\\d+)",
      "neck.reassemble_stage.readout_projects.\\1.layers.0" },
    { GF_HUB_RENAME, "depth_head\\.reassemble\\.out_projections\\.(\\d+)\\.",
      "neck.reassemble_stage.layers.\\1.projection." },
    { GF_HUB_RENAME, "depth_head\\.reassemble\\.resize_layers\\.(\\d+)\\.",
      "neck.reassemble_stage.layers.\\1.resize." },
    { GF_HUB_RENAME, "depth_head\\.fusion_blocks\\.(\\d+)\\.out_conv\\.",
      "neck.fusion_stage.layers.\\1.projection." },
    { GF_HUB_RENAME, "depth_head\\.fusion_blocks\\.(\\d+)\\.main_unit\\.conv1\\.",
      "neck.fusion_stage.layers.\\1.residual_layer2.convolution1." },
    { GF_HUB_RENAME, "depth_head\\.fusion_blocks\\.(\\d+)\\.main_unit\\.conv2\\.",
      "neck.fusion_stage.layers.\\1.residual_layer2.convolution2." },
    { GF_HUB_RENAME, "depth_head\\.fusion_blocks\\.(\\d+)\\.residual_unit\\.conv1\\.",
      "neck.fusion_stage.layers.\\1.residual_layer1.convolution1." },
    { GF_HUB_RENAME, "depth_head\\.fusion_blocks\\.(\\d+)\\.residual_unit\\.conv2\\.",
      "neck.fusion_stage.layers.\\1.residual_layer1.convolution2." },
    { GF_HUB_RENAME, "depth_head\\.convs", "neck.convs" },
    { GF_HUB_RENAME, "depth_head\\.project", "decoder.project" },
    { GF_HUB_RENAME, "depth_head\\.depth_head\\.", "decoder.head." },
    { 0 },
};

static const struct gf_hub_rule Tipsv2DptForNormalEstimation[] = {
    { GF_HUB_RENAME, "vision_encoder", "backbone" },
    { GF_HUB_RENAME, "normals_head\\.reassemble\\.readout_projects\\.(\\d+)",
      "neck.reassemble_stage.readout_projects.\\1.layers.0" },
    { GF_HUB_RENAME, "normals_head\\.reassemble\\.out_projections\\.(\\d+)\\.",
      "neck.reassemble_stage.layers.\\1.projection." },
    { GF_HUB_RENAME, "normals_head\\.reassemble\\.resize_layers\\.(\\d+)\\.",
      "neck.reassemble_stage.layers.\\1.resize." },
    { GF_HUB_RENAME, "normals_head\\.fusion_blocks\\.(\\d+)\\.out_conv\\.",
      "neck.fusion_stage.layers.\\1.projection." },
    { GF_HUB_RENAME, "normals_head\\.fusion_blocks\\.(\\d+)\\.main_unit\\.conv1\\.",
      "neck.fusion_stage.layers.\\1.residual_layer2.convolution1." },
    { GF_HUB_RENAME, "normals_head\\.fusion_blocks\\.(\\d+)\\.main_unit\\.conv2\\.",
      "neck.fusion_stage.layers.\\1.residual_layer2.convolution2." },
    { GF_HUB_RENAME, "normals_head\\.fusion_blocks\\.(\\d+)\\.residual_unit\\.conv1\\.",
      "neck.fusion_stage.layers.\\1.residual_layer1.convolution1." },
    { GF_HUB_RENAME, "normals_head\\.fusion_blocks\\.(\\d+)\\.residual_unit\\.conv2\\.",
      "neck.fusion_stage.layers.\\1.residual_layer1.convolution2." },
    { GF_HUB_RENAME, "normals_head\\.convs", "neck.convs" },
    { GF_HUB_RENAME, "normals_head\\.project", "decoder.project" },
    { GF_HUB_RENAME, "normals_head\\.normals_head\\.", "decoder.head." },
    { 0 },
};

static const struct gf_hub_rule Tipsv2DptForSemanticSegmentation[] = {
    { GF_HUB_RENAME, "vision_encoder", "backbone" },
    { GF_HUB_RENAME, "segmentation_head\\.reassemble\\.readout_projects\\.(\\d+)",
      "neck.reassemble_stage.readout_projects.\\1.layers.0" },
    { GF_HUB_RENAME, "segmentation_head\\.reassemble\\.out_projections\\.(\\d+)\\.",
      "neck.reassemble_stage.layers.\\1.projection." },
    { GF_HUB_RENAME, "segmentation_head\\.reassemble\\.resize_layers\\.(\\d+)\\.",
      "neck.reassemble_stage.layers.\\1.resize." },
    { GF_HUB_RENAME, "segmentation_head\\.fusion_blocks\\.(\\d+)\\.out_conv\\.",
      "neck.fusion_stage.layers.\\1.projection." },
    { GF_HUB_RENAME, "segmentation_head\\.fusion_blocks\\.(\\d+)\\.main_unit\\.conv1\\.",
      "neck.fusion_stage.layers.\\1.residual_layer2.convolution1." },
    { GF_HUB_RENAME, "segmentation_head\\.fusion_blocks\\.(\\d+)\\.main_unit\\.conv2\\.",
      "neck.fusion_stage.layers.\\1.residual_layer2.convolution2." },
    { GF_HUB_RENAME,
      "segmentation_head\\.fusion_blocks\\.(\\d+)\\.residual_unit\\.conv1\\.",
      "neck.fusion_stage.layers.\\1.residual_layer1.convolution1." },
    { GF_HUB_RENAME,
      "segmentation_head\\.fusion_blocks\\.(\\d+)\\.residual_unit\\.conv2\\.",
      "neck.fusion_stage.layers.\\1.residual_layer1.convolution2." },
    { GF_HUB_RENAME, "segmentation_head\\.convs", "neck.convs" },
    { GF_HUB_RENAME, "segmentation_head\\.project", "decoder.project" },
    { GF_HUB_RENAME, "segmentation_head\\.segmentation_head\\.", "decoder.head." },
    { 0 },
};

static const struct gf_hub_rule videomae[] = {
    { GF_HUB_RENAME, "attention\\.attention\\.q_bias$", "attention.attention.query.bias" },
    { GF_HUB_RENAME, "attention\\.attention\\.v_bias$", "attention.attention.value.bias" },
    { 0 },
};

static const struct gf_hub_rule ViTMAEForPreTraining[] = {
    { GF_HUB_RENAME, "attention.query", "q_proj" },
    { GF_HUB_RENAME, "attention.key", "k_proj" },
    { GF_HUB_RENAME, "attention.value", "v_proj" },
    { GF_HUB_RENAME, "attention.output.dense", "attention.o_proj" },
    { GF_HUB_RENAME, "intermediate.dense", "mlp.fc1" },
    { GF_HUB_RENAME, "output.dense", "mlp.fc2" },
    { 0 },
};

static const struct gf_hub_rule ViTModel[] = {
    { GF_HUB_RENAME, "encoder\\.layer\\.", "layers." },
    { GF_HUB_USE, "ViTMAEForPreTraining", NULL },
    { 0 },
};

static const struct gf_hub_rule ViTMSNForImageClassification[] = {
    { GF_HUB_RENAME, "^encoder\\.", "vit.encoder." },
    { 0 },
};

static const struct gf_hub_rule yolos[] = {
    { GF_HUB_RENAME, "encoder.mid_position_embeddings",
      "encoder.interpolation.mid_position_embeddings" },
    { 0 },
};

const struct gf_hub_family gf_hub_vision[] = {
    { "BeitBackbone", BeitBackbone },
    { "BeitForSemanticSegmentation", BeitForSemanticSegmentation },
    { "BeitModel", BeitModel },
    { "ConditionalDetrForSegmentation", DetrForSegmentation },
    { "ConditionalDetrModel", ConditionalDetrModel },
    { "d_fine", d_fine },
    { "deformable_detr", deformable_detr },
    { "DeiTModel", ViTModel },
    { "DetrForSegmentation", DetrForSegmentation },
    { "DetrModel", DetrModel },
    { "Dinov2Backbone", Dinov2Model },
    { "Dinov2Model", Dinov2Model },
    { "Dinov2WithRegistersBackbone", Dinov2Model },
    { "Dinov2WithRegistersModel", Dinov2Model },
    { "dinov3_convnext", dinov3_convnext },
    { "dinov3_vit", dinov3_vit },
    { "IJepaModel", ViTModel },
    { "lw_detr", lw_detr },
    { "maskformer", maskformer },
    { "MaskFormerDetrDecoder", DetrModel },
    { "pixio", pixio },
    { "pp_doclayout_v2", rt_detr },
    { "pp_doclayout_v3", rt_detr },
    { "radio", radio },
    { "RfDetrForInstanceSegmentation", RfDetrForInstanceSegmentation },
    { "RfDetrForObjectDetection", RfDetrForObjectDetection },
    { "RfDetrModel", RfDetrModel },
    { "rt_detr", rt_detr },
    { "rt_detr_v2", rt_detr },
    { "sam3_tracker", sam3_tracker },
    { "sam3_tracker_video", sam3_tracker },
    { "sapiens2", sapiens2 },
    { "Sapiens2ForImageMatting", Sapiens2ForImageMatting },
    { "Sapiens2ForNormalEstimation", Sapiens2ForNormalEstimation },
    { "Sapiens2ForPointmapEstimation", Sapiens2ForPointmapEstimation },
    { "Sapiens2ForPoseEstimation", Sapiens2ForPoseEstimation },
    { "Sapiens2ForSemanticSegmentation", Sapiens2ForSemanticSegmentation },
    { "SegformerForSemanticSegmentation", SegformerForSemanticSegmentation },
    { "SegformerModel", SegformerModel },
    { "swin", swin },
    { "SwinBackbone", SwinBackbone },
    { "timm_wrapper", timm_wrapper },
    { "tipsv2_dpt", tipsv2_dpt },
    { "Tipsv2DptForDepthEstimation", Tipsv2DptForDepthEstimation },
    { "Tipsv2DptForNormalEstimation", Tipsv2DptForNormalEstimation },
    { "Tipsv2DptForSemanticSegmentation", Tipsv2DptForSemanticSegmentation },
    { "videomae", videomae },
    { "ViTMAEForPreTraining", ViTMAEForPreTraining },
    { "ViTMAEModel", ViTModel },
    { "ViTModel", ViTModel },
    { "ViTMSNForImageClassification", ViTMSNForImageClassification },
    { "ViTMSNModel", ViTModel },
    { "VivitModel", ViTModel },
    { "yolos", yolos },
    { 0 },
};
