"""The paper's recipe, cut down to what two cores train in seconds."""

NATURAL = {"train": "natural", "val": "natural", "test": "natural"}

# To be formatted with the repository and the prepared folder; further lines may follow.
TINY = """
_base_ = ['{repository}/configs/lung_deform_detr.py']
data_root = '{data}'
model = dict(
    num_queries=10,
    backbone=dict(depth=18, base_channels=16, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128]),
    encoder=dict(num_layers=1),
    decoder=dict(num_layers=1),
    test_cfg=dict(max_per_img=10))
# Seven positive and seven healthy slabs: five batches, so that an update stays half accumulated.
train_dataloader = dict(
    batch_size=3, num_workers=1, dataset=dict(data_root=data_root, positive_rate=0.5))
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                      dataset=dict(data_root=data_root))
test_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                       dataset=dict(data_root=data_root))
val_evaluator = dict(
    _delete_=True, type='SizeBandMetric', ann_file=data_root + '/annotations/val.json')
test_evaluator = dict(
    _delete_=True, type='SizeBandMetric', ann_file=data_root + '/annotations/test.json')
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', accumulative_counts=2,
    optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=0.1))
train_cfg = dict(max_epochs=3, val_interval=10)
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
"""
