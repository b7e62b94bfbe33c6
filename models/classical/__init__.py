"""The honest baseline: nuclei by stain separation and shape, no learning."""
