# The prepared slabs: loading, the paper's augmentations, evaluation by size band.
# The folder comes from the environment variable LUNGDET_DATA or --data of the tools.
data_root = '{{$LUNGDET_DATA:data/prepared}}'
# Loading processes: our tools count the cores, mmdet's own take two.
num_workers = int('{{$LUNGDET_WORKERS:2}}')

meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
             'flip_direction', 'seriesuid', 'slab_index', 'z_range_mm', 'spacing', 'origin',
             'direction')

train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color'),
    dict(type='LoadAnnotations', with_bbox=True),
    # Horizontal and vertical flips, each with probability 1/2, independently ('diagonal' is both).
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25],
         direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='RandomSlabRotate', max_angle_deg=15.0),
    dict(type='RandomSlabBrightness', max_change=0.15),
    dict(type='RandomSlabNoise', sd_percent=(0.001, 0.18)),
    dict(type='PackSlab', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color'),
    # No resizing: a pixel is the same number of millimetres in every slab. The step is here because
    # mmdet's heads need a scale factor.
    dict(type='Resize', scale_factor=1.0, keep_ratio=True),
    dict(type='PackSlab', meta_keys=meta_keys),
]

train_dataloader = dict(
    batch_size=6,
    num_workers=num_workers,
    # Fresh workers every epoch, seeded by ExactResumeHook: a resumed epoch draws the same
    # augmentations as an uninterrupted one.
    persistent_workers=False,
    worker_init_fn=dict(type='seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='LUNA16SlabDataset',
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='slabs/'),
        # Healthy slabs are the point: never filter them.
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=6,
    num_workers=num_workers,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='LUNA16SlabDataset',
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='slabs/'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = dict(
    batch_size=6,
    num_workers=num_workers,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='LUNA16SlabDataset',
        data_root=data_root,
        ann_file='annotations/test.json',
        data_prefix=dict(img='slabs/'),
        test_mode=True,
        pipeline=test_pipeline))

# Slabs: AP and AR by size, and the threshold that the checkpoint carries ('sensitivity>=0.9' is the
# other rule). Scans: FROC and CPM.
val_evaluator = [
    dict(type='SizeBandMetric', ann_file=data_root + '/annotations/val.json', choose='max_f1'),
    dict(type='FROCMetric', ann_file=data_root + '/annotations/val.json'),
]
test_evaluator = [
    dict(type='SizeBandMetric', ann_file=data_root + '/annotations/test.json'),
    dict(type='FROCMetric', ann_file=data_root + '/annotations/test.json'),
]
