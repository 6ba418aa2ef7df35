"""What can go wrong in this package, as a user would say it."""


class StorageError(Exception):
    """The database or a stored file cannot be used: what was wrong, the value received, what to do next."""


class StorageUrlError(StorageError, ValueError):
    """A database URL that is not one of the accepted forms."""


class DamagedFileError(StorageError):
    """A stored file's bytes are not the bytes that were written."""


class OutsideStoreError(StorageError, OSError):
    """The place outside the database that keeps files' bytes fails: a full disk, a bucket out of reach."""


class TrialLimitReached(Exception):
    """The study has all the trials that it may have."""


class LeaseLost(Exception):
    """The trial is another worker's now, or nobody's: what was to be written was not written."""
