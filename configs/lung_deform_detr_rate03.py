# Ablation: training slabs drawn at a positive rate of 3 %. Validation and test stay as they are.
_base_ = ['./lung_deform_detr.py']

train_dataloader = dict(dataset=dict(positive_rate=0.03, positive_rate_seed=0))
