# The paper's baseline: plain DETR under the same data and schedule. DETR needs far more epochs than
# Deformable-DETR to converge; train_cfg.max_epochs is the key to raise.
_base_ = ['./_base_/paper_recipe.py', './_base_/detr_r50.py']
