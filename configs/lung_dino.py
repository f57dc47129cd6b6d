# DINO under the paper's data and schedule.
_base_ = ['./_base_/paper_recipe.py', './_base_/dino_r50.py']
