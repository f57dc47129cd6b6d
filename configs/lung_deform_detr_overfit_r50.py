# The same check as lung_deform_detr_overfit.py with the paper's own detector (ResNet-50, six and six
# layers, 300 queries), from random weights where there are no others. One slab a step, for a CPU.
#   python tools/train.py configs/lung_deform_detr_overfit_r50.py --data PREPARED_DIR --allow-leak --pretrained none
_base_ = ['./lung_deform_detr_fp32.py']

plain_train_pipeline = [*_base_.train_pipeline[:2], _base_.train_pipeline[-1]]
positives_only = dict(ann_file='annotations/train.json', positive_rate=1.0)
train_dataloader = dict(
    batch_size=1, num_workers=1, dataset=dict(pipeline=plain_train_pipeline, **positives_only),
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
val_dataloader = dict(batch_size=3, num_workers=1, dataset=positives_only)
test_dataloader = dict(batch_size=3, num_workers=1, dataset=positives_only)
auto_scale_lr = dict(base_batch_size=1)
val_evaluator = [
    dict(type='SizeBandMetric', ann_file=_base_.data_root + '/annotations/train.json', choose='max_f1')]
test_evaluator = [
    dict(type='SizeBandMetric', ann_file=_base_.data_root + '/annotations/train.json')]

max_iters = 300
optim_wrapper = dict(
    accumulative_counts=1, optimizer=dict(lr=2e-4), clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(custom_keys={
        'backbone': dict(lr_mult=1.0),
        'sampling_offsets': dict(lr_mult=0.1),
        'reference_points': dict(lr_mult=0.1)}))
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=40, end=max_iters),
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=100, save_best=None))
log_processor = dict(by_epoch=False, window_size=10)
