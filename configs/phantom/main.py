# The detector of the paper's comparisons on coarse phantoms (pixels of 1.2 mm): mmdet's own Deformable-DETR,
# small, on whole slabs. configs/lung_deform_detr_phantom.py learns small nodules many times faster.
_base_ = ['../lung_deform_detr.py']

# Small phantoms have pixels of 1.2 mm and more: at 1 mm nothing is lost and half the pixels remain.
prep_pipeline = [
    dict(step, spacing_zyx_mm=(1.25, 1.0, 1.0)) if step['type'] == 'ResampleScan' else step
    for step in _base_.prep_pipeline]

no_dropout = dict(feedforward_channels=512, ffn_drop=0.0)
model = dict(
    num_queries=30,
    num_feature_levels=3,
    with_box_refine=True,
    as_two_stage=True,
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_cfg=dict(requires_grad=True),
                  norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256], num_outs=3),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(self_attn_cfg=dict(num_levels=3, num_points=2, dropout=0.0),
                       ffn_cfg=no_dropout)),
    decoder=dict(
        num_layers=3,
        layer_cfg=dict(self_attn_cfg=dict(dropout=0.0),
                       cross_attn_cfg=dict(num_levels=3, dropout=0.0), ffn_cfg=no_dropout)),
    test_cfg=dict(max_per_img=20))

# More than half of the drawn slabs hold a nodule: a short training sees enough of them.
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(positive_rate=0.6),
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
val_dataloader = dict(batch_size=8, num_workers=1)
test_dataloader = dict(batch_size=8, num_workers=1)
auto_scale_lr = dict(base_batch_size=8)

max_iters = 800
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(sampling_offsets=dict(lr_mult=0.1))))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=20, end=max_iters),
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=400, save_best=None))
log_processor = dict(by_epoch=False, window_size=20)
