default_scope = 'mmdet'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='AtomicCheckpointHook', interval=1, max_keep_ckpts=2, save_best='lung/AP50',
        rule='greater'),
    # The threshold chosen on validation goes into the checkpoint of that validation.
    operating_point=dict(type='OperatingPointHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'))

custom_hooks = [
    # Boxes, matching costs and losses in 32 bits under mixed precision; logs which attention runs.
    dict(type='DetectorSetupHook'),
    # Random numbers and half-accumulated gradients, so that a resumed run is the uninterrupted one.
    dict(type='ExactResumeHook'),
    dict(type='StopOnBadLossHook'),
    dict(type='PositivesWarningHook'),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # tools/train.py and tools/test.py take gloo where there is no GPU.
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
