# Validates and saves an exponential moving average of the weights beside the weights themselves.
_base_ = ['./lung_deform_detr.py']

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0005, update_buffers=True,
         priority=49),
]
