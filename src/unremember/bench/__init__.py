"""Methods compared at matched forgetting, and the tables and figures of it: what `unremember bench` runs."""
