"""What can go wrong while watching, as one tree.

StreamVLMError
├── SourceError      a video cannot be opened or read; names the source and the cause
├── ModelError       a checkpoint cannot be loaded, or its architecture is not supported
├── BudgetError      a request does not fit the memory the stream was given
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


class ReaderCancelled(StreamVLMError):
    """The answer was cancelled before it was complete."""


class StreamClosed(StreamVLMError):
    """The stream ended before the request could be served."""
