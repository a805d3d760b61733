"""What an output tells about its size, for usage tracking."""

from typing import Any, Optional

from pydantic import BaseModel, Field


class _MetaItem(BaseModel):
    type: str
    extra: Optional[dict[str, Any]] = Field(default=None, description="Facts of the app's own")


class TextMeta(_MetaItem):
    """Text, in tokens; the cached ones are part of ``tokens``."""

    type: str = "text"
    tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class ImageMeta(_MetaItem):
    """Images: pixels, megapixels, diffusion steps, how many."""

    type: str = "image"
    width: int = 0
    height: int = 0
    resolution_mp: float = 0
    steps: int = 0
    count: int = 1


class VideoMeta(_MetaItem):
    """A video: pixels, megapixels per frame, a preset such as ``720p``, seconds, frames per second."""

    type: str = "video"
    width: int = 0
    height: int = 0
    resolution_mp: float = 0
    resolution: Optional[str] = None
    seconds: float = 0
    fps: int = 0


class AudioMeta(_MetaItem):
    """Sound: seconds and samples per second."""

    type: str = "audio"
    seconds: float = 0
    sample_rate: int = 0


class RawMeta(_MetaItem):
    """A cost in cents, where nothing else fits."""

    type: str = "raw"
    cost: float = 0


class OutputMeta(BaseModel):
    """What went in and what came out."""

    inputs: list[Any] = Field(default_factory=list)
    outputs: list[Any] = Field(default_factory=list)
