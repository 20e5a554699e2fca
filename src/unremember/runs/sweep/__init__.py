"""A sweep: many configurations, forgotten and measured beside the same controls; one of them is recommended."""
