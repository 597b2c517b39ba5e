"""DICOM series, one file per slice; `cpic.data.read_series` and `open_volume` read them."""
