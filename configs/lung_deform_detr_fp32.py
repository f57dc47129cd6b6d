# The paper's recipe in 32-bit floats. tools/train.py falls back to this by itself where there is no
# GPU; mmdet's own tools/train.py needs the config to say it.
_base_ = ['./lung_deform_detr.py']

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    accumulative_counts=6,
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))
