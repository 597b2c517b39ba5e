"""The exceptions a caller may want to catch."""


class RankDeficientError(ValueError):
    """A matrix has a lower rank than the operation needs."""


class VolumeError(ValueError):
    """A volume cannot be opened or read as asked.

    Args:
        message: what is wrong; a whole sentence, unless an option is given.
        option: the option of a reader that would help, and
        instead: what helps where that option cannot be given; both become part of the sentence.

    Attributes:
        plain: the sentence without the option, for callers who do not offer it.
    """

    def __init__(self, message: str, *, option: str = "", instead: str = "") -> None:
        super().__init__(f"{message}; {option}, or {instead}." if option else message)
        self.plain = f"{message}; {instead}." if option else message


class CohortError(ValueError):
    """A cohort (its folder tree, tables or options) is not what is needed."""


class CacheError(CohortError):
    """A cache folder cannot be used: full, read-only, or inside the data folder."""
