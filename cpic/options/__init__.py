"""Settings: what each may be, and how files and presets say them."""
