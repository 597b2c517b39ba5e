"""NIfTI images: header, place in space, unpacking; `cpic.data.NiftiVolume` reads them."""
