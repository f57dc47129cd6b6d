# Small and quick: learns the phantom cohort on two CPU cores in minutes. Prepared as for real scans,
# with the slabs below and above in the first and third channel: a vessel along z goes on in them.
_base_ = ['./_base_/paper_recipe.py']

prep_pipeline = [*_base_.prep_pipeline, dict(type='NeighbourChannels')]

window_px = 96
dims = 128
no_dropout = dict(embed_dims=dims, feedforward_channels=dims, ffn_drop=0.0)
model = dict(
    type='SlabDINO',
    window_px=window_px,
    overlap_px=32,
    num_queries=30,
    num_feature_levels=3,
    with_box_refine=True,
    as_two_stage=True,
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[114.5] * 3, std=[57.6] * 3, bgr_to_rgb=False,
        pad_size_divisor=16),
    backbone=dict(
        type='ResNetV1d', depth=18, base_channels=48, stem_channels=32, num_stages=3,
        strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2), norm_cfg=dict(type='BN'),
        norm_eval=False, init_cfg=None),
    neck=dict(
        type='ChannelMapper', in_channels=[48, 96, 192], kernel_size=1, out_channels=dims,
        act_cfg=None, norm_cfg=dict(type='GN', num_groups=32), num_outs=3),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=dims, num_heads=4, num_levels=3, num_points=1, dropout=0.0,
                               batch_first=True),
            ffn_cfg=no_dropout)),
    decoder=dict(
        num_layers=2,
        return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=dims, num_heads=8, dropout=0.0, batch_first=True),
            cross_attn_cfg=dict(embed_dims=dims, num_heads=4, num_levels=3, dropout=0.0, batch_first=True),
            ffn_cfg=no_dropout),
        post_norm_cfg=None),
    positional_encoding=dict(num_feats=dims // 2, normalize=True, offset=0.0, temperature=20),
    bbox_head=dict(
        type='DINOHead',
        num_classes=1,
        embed_dims=dims,
        sync_cls_avg_factor=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
    dn_cfg=dict(label_noise_scale=0.5, box_noise_scale=1.0,
                group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=20)),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ])),
    test_cfg=dict(max_per_img=20))

train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomSlabRotate', max_angle_deg=45.0),
    dict(type='RandomSlabWindow', size_px=window_px),
    dict(type='PasteNodules', most=2),
    dict(type='RandomSlabReverse'),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25],
         direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='RandomSlabBrightness', max_change=0.15),
    dict(type='RandomSlabNoise', sd_percent=(0.001, 0.18)),
    dict(type='PackSlab', meta_keys={{_base_.meta_keys}}),
]
# Every slab of the split: thinned to a rate, it would leave out nodules for good, or tissue.
# Windows and pasting show nodules often enough.
train_dataloader = dict(
    batch_size=32, num_workers=1,
    dataset=dict(pipeline=train_pipeline),
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
val_dataloader = dict(batch_size=8, num_workers=1)
test_dataloader = dict(batch_size=8, num_workers=1)
auto_scale_lr = dict(base_batch_size=32)

max_iters = 700
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.02),
    clip_grad=dict(max_norm=1.0, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(sampling_offsets=dict(lr_mult=0.1))))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=50, end=max_iters),
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=400, save_best=None))
log_processor = dict(by_epoch=False, window_size=20)
