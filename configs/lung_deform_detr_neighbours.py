# Ablation: the slabs below and above in the first and third channel.
# Needs a prepared folder of its own (prepare_luna16.py --config THIS_FILE).
_base_ = ['./lung_deform_detr.py']

prep_pipeline = [*_base_.prep_pipeline, dict(type='NeighbourChannels')]

# The channels are three pictures, not red, green and blue: one mean and one standard deviation.
model = dict(data_preprocessor=dict(mean=[114.5] * 3, std=[57.6] * 3))
