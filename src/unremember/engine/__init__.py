"""The engine: one loop, four seams (loss, blend, sampling, selection), no modality."""
