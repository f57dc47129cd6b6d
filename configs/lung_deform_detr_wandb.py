# Logs to Weights & Biases as well (pip install wandb; wandb login).
_base_ = ['./lung_deform_detr.py']

visualizer = dict(
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='WandbVisBackend', init_kwargs=dict(project='lungdet_mmdet')),
    ])
