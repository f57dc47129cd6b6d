# The training recipe of section 3 of the paper.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    accumulative_counts=6,  # 6 batches of 6: one update per 36 slabs
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=15, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# torch's StepLR with step size 10 and gamma 0.1
param_scheduler = [dict(type='StepLR', step_size=10, gamma=0.1, by_epoch=True)]

# Of one process and one batch: mmengine compares it with batch size x processes, and leaves out that
# gradients are accumulated over 6 batches, which they are with any number of processes.
auto_scale_lr = dict(enable=False, base_batch_size=6)
