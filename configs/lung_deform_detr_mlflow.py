# Logs to MLflow as well (pip install mlflow); MLFLOW_TRACKING_URI names the server.
_base_ = ['./lung_deform_detr.py']

visualizer = dict(
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='MLflowVisBackend', exp_name='lungdet_mmdet'),
    ])
