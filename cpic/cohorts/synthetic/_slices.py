"""Slices of a CT scan as DICOM files, with the variations between scanners of the real set."""

import dataclasses
from pathlib import Path

import numpy as np

# Neither an account nor a date: an identifier depends only on the seed and the patient.
_VERSION = "CPIC_SYNTHETIC"


@dataclasses.dataclass(frozen=True)
class Scanner:
    """How the series of one patient is stored.

    Attributes:
        signed: 16-bit signed values with -2000 outside the scanner's circle; otherwise unsigned
            values that fill the square.
        positions: With ImagePositionPatient and SliceLocation.
        numbers: File number of each slice, slices ordered from the feet up.
        readable: False writes pixel data with a false compression syntax, which cannot be decoded.
    """

    signed: bool
    positions: bool
    numbers: tuple[int, ...]
    readable: bool = True


def stored(hu: np.ndarray, scanner: Scanner) -> np.ndarray:
    """Stored pixel values, intercept -1024; (..., H, W) int16 or uint16."""
    raw = np.clip(np.rint(hu), -1024, 3071) + 1024
    if not scanner.signed:
        return raw.astype(np.uint16)
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in hu.shape[-2:])
    circle = np.hypot(rows[:, None], columns) <= max(hu.shape[-2:]) / 2
    return np.where(circle, raw, -2000).astype(np.int16)


def write_slices(
    folder: Path,
    hu: np.ndarray,
    first: int,
    *,
    patient: str,
    scanner: Scanner,
    spacing: tuple[float, float],
) -> None:
    """Write slices `first`, `first + 1`, ... of a series from the feet up.

    Args:
        folder: Folder of the patient.
        hu: (n, H, W).
        first: Position of the first one in the series.
        patient: Its identifier, which also determines the identifiers in the files.
        scanner: Storage options.
        spacing: Mm between slices and between pixels.
    """
    from pydicom import dcmwrite
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLosslessSV1

    pixels = stored(hu, scanner)
    dataset = _header(patient, pixels, scanner, spacing)
    meta = dataset.file_meta
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if scanner.readable else JPEGLosslessSV1
    corner = [-spacing[1] * (n - 1) / 2 for n in (pixels.shape[2], pixels.shape[1])]
    for k, plane in enumerate(pixels):
        number = scanner.numbers[first + k]
        uid = UID(_uid(patient, f"image {number}"))
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
        dataset.InstanceNumber = number
        if scanner.positions:
            height = round(spacing[0] * (first + k), 4)
            dataset.ImagePositionPatient = [*(round(c, 4) for c in corner), height]
            dataset.SliceLocation = height
        data = plane.astype(plane.dtype.newbyteorder("<")).tobytes()
        # As for two patients of the real set: the declared compression does not match the bytes.
        dataset.PixelData = data if scanner.readable else encapsulate([data[: len(data) // 8]])
        dataset["PixelData"].VR = "OW" if scanner.readable else "OB"
        dcmwrite(folder / f"{number}.dcm", dataset, enforce_file_format=True)


def _uid(patient: str, part: str) -> str:
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=[patient, part])


def _header(patient: str, pixels: np.ndarray, scanner: Scanner, spacing: tuple[float, float]):
    """The attributes shared by the slices of a series."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, CTImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    meta.ImplementationVersionName = _VERSION
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = CTImageStorage
    for name in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"):
        setattr(dataset, name, "")
    for name in ("PatientBirthDate", "PatientSex", "StudyID", "PositionReferenceIndicator"):
        setattr(dataset, name, "")
    dataset.Modality = "CT"
    dataset.Manufacturer = "SYNTHETIC A" if scanner.signed else "SYNTHETIC B"
    dataset.PatientName = dataset.PatientID = patient
    dataset.BodyPartExamined = "CHEST"
    dataset.KVP = "120"
    dataset.PatientPosition = "FFS"
    dataset.SliceThickness = round(spacing[0], 4)
    dataset.StudyInstanceUID = _uid(patient, "study")
    dataset.SeriesInstanceUID = _uid(patient, "series")
    dataset.FrameOfReferenceUID = _uid(patient, "frame")
    dataset.SeriesNumber = "2"
    dataset.AcquisitionNumber = "1"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[1:]
    dataset.PixelSpacing = [round(spacing[1], 6)] * 2
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(scanner.signed)
    if scanner.signed:
        dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.WindowCenter, dataset.WindowWidth = "-500", "1500"
    dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
    dataset.RescaleType = "HU"
    return dataset
