"""A sweep: many configurations, measured beside the same controls, one of which is recommended."""
