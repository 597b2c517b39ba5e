"""The exceptions a caller may want to catch."""


class RankDeficientError(ValueError):
    """A matrix has a lower rank than the operation needs."""


class VolumeError(ValueError):
    """A volume cannot be opened or read as asked."""


class CohortError(ValueError):
    """A cohort (its folder tree, tables or options) is not what is needed."""


class CacheError(CohortError):
    """A cache folder cannot be used: full, read-only, or inside the data folder."""
