"""Pictures and pages: overlays of boxes on slabs, plots, reports."""
