"""Video in: files, image folders, network streams and webcams as one iterator of frames."""

from streamvlm.source.base import Source, SourceStats
from streamvlm.source.opening import open_source
from streamvlm.source.options import Backoff, Clock, SourceOptions

__all__ = ["Backoff", "Clock", "Source", "SourceOptions", "SourceStats", "open_source"]
