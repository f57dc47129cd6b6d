# Small and quick: learns the phantom cohort on two CPU cores in minutes. Not a recipe for real data.
_base_ = ['./lung_deform_detr.py']

model = dict(
    num_queries=50,
    with_box_refine=True,
    as_two_stage=True,
    backbone=dict(depth=18, frozen_stages=-1, norm_cfg=dict(requires_grad=True), norm_eval=False,
                  init_cfg=None),
    neck=dict(in_channels=[128, 256, 512]),
    encoder=dict(num_layers=1),
    decoder=dict(num_layers=3),
    test_cfg=dict(max_per_img=20))

train_dataloader = dict(batch_size=8, num_workers=1)
val_dataloader = dict(batch_size=8, num_workers=1)
test_dataloader = dict(batch_size=8, num_workers=1)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(sampling_offsets=dict(lr_mult=0.1),
                                        reference_points=dict(lr_mult=0.1))))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=240, val_interval=1000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.05, by_epoch=False, begin=20, end=240),
]
