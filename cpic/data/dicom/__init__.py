"""DICOM series, one file a slice; `cpic.data.read_series` and `open_volume` read them."""
