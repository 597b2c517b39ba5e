"""NIfTI images: header, position in space, decompression; read by `cpic.data.NiftiVolume`."""
