# The recommended reproduction: the paper's slabs, split and augmentations, and what made a Deformable-DETR
# learn small nodules on phantoms. docs/protocol.md says row by row what differs from lung_deform_detr.py.
# Starts from mmdet's DINO (Deformable-DETR with denoising queries and two stages) trained on COCO; without
# a network: tools/train.py --load-from PATH.
_base_ = ['./_base_/paper_recipe.py', './_base_/dino_r50.py']

load_from = ('https://download.openmmlab.com/mmdetection/v3.0/dino/dino-4scale_r50_8xb2-12e_coco/'
             'dino-4scale_r50_8xb2-12e_coco_20221202_182705-55b2bba2.pth')

# Windows of 256 px (179 mm), enlarged: stride 8, the finest that COCO's weights have, is then 4 px.
window_px, enlarged = 256, 2
model = dict(
    type='SlabDINO',
    window_px=window_px * enlarged,
    overlap_px=128,
    test_cfg=dict(max_per_img=100))

resize = dict(type='Resize', scale_factor=float(enlarged), keep_ratio=True)
train_pipeline = [
    *_base_.train_pipeline[:4],  # loaded, flipped, rotated
    dict(type='RandomSlabWindow', size_px=window_px),
    dict(type='PasteNodules', most=2),
    resize,
    *_base_.train_pipeline[4:],
]
test_pipeline = [resize if step['type'] == 'Resize' else step for step in _base_.test_pipeline]
train_dataloader = dict(batch_size=12, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

# An update for every 12 windows, where the paper has one for 36 slabs: the same epochs, three times
# the updates. Offsets of the attention learn slowly, as in Deformable-DETR.
optim_wrapper = dict(
    accumulative_counts=1,
    paramwise_cfg=dict(custom_keys={
        'backbone': dict(lr_mult=0.1),
        'sampling_offsets': dict(lr_mult=0.1)}))
auto_scale_lr = dict(base_batch_size=12)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='FitCheckpointHook'),
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0005, update_buffers=True,
         priority=49),
]
