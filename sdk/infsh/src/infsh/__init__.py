"""What an inference app is written with: `BaseApp`, its input and output models, `File`."""

from ._app import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup, Metadata, StreamDelta
from ._file import File
from ._function import function
from ._meta import AudioMeta, ImageMeta, OutputMeta, RawMeta, TextMeta, VideoMeta
from ._storage import StorageDir, download

__version__ = "0.1.0"

__all__ = [
    "AudioMeta",
    "BaseApp",
    "BaseAppInput",
    "BaseAppOutput",
    "BaseAppSetup",
    "File",
    "ImageMeta",
    "Metadata",
    "OutputMeta",
    "RawMeta",
    "StorageDir",
    "StreamDelta",
    "TextMeta",
    "VideoMeta",
    "download",
    "function",
]
