"""Vision-language segmentation carried over from photographs: CLIPSeg, CRIS, BiomedCLIPSeg and -D (arXiv 2308.07706)."""
