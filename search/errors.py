"""What can go wrong in this package, as a user would say it."""


class SearchError(Exception):
    """Base of the errors below: what was wrong, the value received, what to do next, in one or two lines."""


class SpaceError(SearchError, ValueError):
    """A search space, or the file that describes one, cannot be used.

    Attributes:
        key: The key that is wrong, such as `low`, so that whoever read it from a file can name its line;
            empty where no single key is.
    """

    def __init__(self, message: str, key: str = "") -> None:
        """`message` is for the user; it stands without `key`."""
        super().__init__(message)
        self.key = key


class StudyError(SearchError):
    """A study cannot be created, opened or continued as asked, or holds what it should not."""


class OutputError(SearchError):
    """A file cannot be written where the user wants it."""


class BaselineError(SearchError):
    """A run of the article's recipe cannot go on in its folder as asked."""


class ConfirmError(SearchError):
    """A study's best recipes cannot be confirmed as asked, or what was kept of a confirmation is damaged."""


class DashboardError(SearchError):
    """The dashboard cannot be served as asked."""


class GpuError(SearchError):
    """A worker cannot have a GPU that works: none is free, none may be used, or it fails."""


class GpuUnusedError(GpuError):
    """There is no GPU for this process, or not with this TensorFlow: nothing is broken."""


class EngineError(SearchError):
    """What is to train is not installed."""
