# Nodules of the training split pasted into its slabs, at new places: more to learn from without
# showing the same slabs more often.
_base_ = ['./lung_deform_detr.py']

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='PasteNodules'),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
