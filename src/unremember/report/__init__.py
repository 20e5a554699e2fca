"""Reports of measurements: tables, figures, the HTML page and the model card."""
