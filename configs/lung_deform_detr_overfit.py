# A check, not a model: overfits the small detector on the positive slabs of a few scans and tests on
# the very same slabs. Finding every nodule proves that pixels, boxes and coordinates agree.
#   python tools/train.py configs/lung_deform_detr_overfit.py --data PREPARED_DIR --allow-leak
_base_ = ['./phantom/main.py']

plain_train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackSlab', meta_keys={{_base_.meta_keys}}),
]
positives_only = dict(ann_file='annotations/train.json', positive_rate=1.0)
train_dataloader = dict(
    batch_size=3, dataset=dict(pipeline=plain_train_pipeline, **positives_only))
val_dataloader = dict(batch_size=3, dataset=positives_only)
test_dataloader = dict(batch_size=3, dataset=positives_only)
auto_scale_lr = dict(base_batch_size=3)
val_evaluator = [
    dict(type='SizeBandMetric', ann_file=_base_.data_root + '/annotations/train.json', choose='max_f1')]
test_evaluator = [
    dict(type='SizeBandMetric', ann_file=_base_.data_root + '/annotations/train.json')]

train_cfg = dict(max_iters=300, val_interval=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=20, end=300),
]
