# Box refinement, and queries that start from the encoder's best proposals.
_base_ = ['./lung_deform_detr_refine.py']

model = dict(as_two_stage=True)
