# mmdet's DINO (4 scales) for one class: Deformable-DETR's backbone, neck and matching, with box
# refinement, two stages and denoising queries. The numbers are DINO's own.
_base_ = ['./deformable_detr_r50.py']

model = dict(
    type='DINO',
    num_queries=900,
    num_feature_levels=4,
    with_box_refine=True,
    as_two_stage=True,
    encoder=dict(
        layer_cfg=dict(
            self_attn_cfg=dict(num_levels=4, dropout=0.0),
            ffn_cfg=dict(feedforward_channels=2048, ffn_drop=0.0))),
    decoder=dict(
        layer_cfg=dict(
            self_attn_cfg=dict(dropout=0.0),
            cross_attn_cfg=dict(num_levels=4, dropout=0.0),
            ffn_cfg=dict(feedforward_channels=2048, ffn_drop=0.0))),
    positional_encoding=dict(offset=0.0, temperature=20),
    bbox_head=dict(type='DINOHead', loss_cls=dict(loss_weight=1.0)),
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=100)),
    test_cfg=dict(max_per_img=300))
