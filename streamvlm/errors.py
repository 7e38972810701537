"""What can go wrong while watching, as one tree.

StreamVLMError
├── SourceError      a video cannot be opened or read; names the source and the cause
├── ModelError       a checkpoint cannot be loaded, or its architecture is not supported
├── BudgetError      a request does not fit the memory the stream was given
├── TrainingError    a training run cannot be resumed, or its data cannot be used; names the file
├── BusyError        there is too much to do already: ask again later, or ask less
├── StoreError       a memory on disk cannot be opened, read or written; names the path and the cause
│   ├── FingerprintError  it was written by another model or setting; says what differs
│   └── CorruptError      what is on disk fails its checksum
├── ReaderCancelled  an answer was cancelled before it was complete
└── StreamClosed     the stream ended before the request could be served

A caller's own mistake (a negative fps, an unknown policy) is a `ValueError` that names the value and what is
allowed; it is not part of this tree.
"""


class StreamVLMError(Exception):
    """Base of every operational error; catch this to catch them all."""


class SourceError(StreamVLMError):
    """A video source cannot be opened or read."""

    def __init__(self, uri: str, cause: str) -> None:
        super().__init__(f"{uri}: {cause}")
        self.uri = uri
        self.cause = cause


class ModelError(StreamVLMError):
    """A checkpoint cannot be loaded or is not of a supported family."""


class BudgetError(StreamVLMError):
    """A request needs more memory than the stream was given."""


class TrainingError(StreamVLMError):
    """A training run cannot be resumed, or its data cannot be used."""


class BusyError(StreamVLMError):
    """What is being watched and answered already takes all there is."""


class StoreError(StreamVLMError):
    """A memory on disk cannot be opened, read or written."""

    def __init__(self, path: object, cause: str) -> None:
        super().__init__(f"{path}: {cause}")
        self.path = str(path)
        self.cause = cause


class FingerprintError(StoreError):
    """Stored keys and values belong to another model, setting or format; they would be nonsense here."""


class CorruptError(StoreError):
    """Stored bytes fail their checksum or are not where the catalogue says."""


class ReaderCancelled(StreamVLMError):
    """The answer was cancelled before it was complete."""


class StreamClosed(StreamVLMError):
    """The stream ended before the request could be served."""
