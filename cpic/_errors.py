"""The exceptions a caller may want to catch."""


class RankDeficientError(ValueError):
    """A matrix has a lower rank than the operation needs."""


class VolumeError(ValueError):
    """A volume cannot be opened or read as asked.

    Args:
        message: What is wrong; a full sentence, unless an option is given.
        option: Advice to use an option of the reader, and
        instead: Advice for callers where that option is not available; both are added to the
            message.

    Attributes:
        plain: The message without the option, for callers that do not have it.
    """

    def __init__(self, message: str, *, option: str = "", instead: str = "") -> None:
        super().__init__(f"{message}; {option}, or {instead}." if option else message)
        self.plain = f"{message}; {instead}." if option else message


class ImageError(ValueError):
    """An image, a slide or a set of pictures cannot be opened or read as requested."""


class CohortError(ValueError):
    """A cohort (its folder tree, tables or options) is invalid."""


class CacheError(CohortError):
    """A cache folder cannot be used: full, read-only, or inside the data folder."""
