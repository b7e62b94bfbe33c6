"""PFPs: one network that is told what to segment by an ID or a sentence, and where by a point (arXiv 2407.09979)."""
