# Ablation: the same 7.5 mm slabs and labels, seen as projections over 5, 10 and 15 mm in the three
# channels. Needs a prepared folder of its own (prepare_luna16.py --config THIS_FILE).
_base_ = ['./lung_deform_detr.py']

prep_pipeline = [
    *_base_.prep_pipeline, dict(type='MIPChannels', thicknesses_mm=(5.0, 10.0, 15.0))]

# The channels are three pictures, not red, green and blue: one mean and one standard deviation.
model = dict(data_preprocessor=dict(mean=[114.5] * 3, std=[57.6] * 3))
