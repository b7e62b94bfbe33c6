"""How a pathology report is read: segments, mentions, assertion."""
