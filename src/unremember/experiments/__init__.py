"""What `unremember bench` and `sweep` run: methods at matched forgetting, seams crossed, hardness, metrics, streams of requests, sweeps."""
