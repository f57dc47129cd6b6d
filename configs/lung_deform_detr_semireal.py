# The model in the box: the small detector of the phantoms, for real lungs. Slabs overlap by half:
# what one of them cuts in two lies in the middle of the next. Zoom, for few lungs to learn from.
_base_ = ['./lung_deform_detr_phantom.py']

prep_pipeline = [
    dict(step, stride_mm=3.75) if step['type'] == 'MIPSlabs' else step
    for step in _base_.prep_pipeline
]
train_pipeline = [
    dict(step, zoom=(0.8, 1.25)) if step['type'] == 'RandomSlabWindow' else step
    for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
