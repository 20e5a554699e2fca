"""The observation store: what a model says about some texts, computed once and keyed by digests."""
