# Ablation: slabs at one and a half times the size in pixels (the spacing of the prepared data stays as it is).
_base_ = ['./lung_deform_detr.py']

resize = dict(type='Resize', scale_factor=1.5, keep_ratio=True)
train_pipeline = [*_base_.train_pipeline[:2], resize, *_base_.train_pipeline[2:]]
test_pipeline = [resize if step['type'] == 'Resize' else step for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
