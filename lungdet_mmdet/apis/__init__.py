"""What the tools call: training, testing, inference, publishing, exporting."""
