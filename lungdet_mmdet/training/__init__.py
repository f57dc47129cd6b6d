"""What a config needs before it can be run here: data, pretrained weights, precision."""
