"""Images: what is here and what it is called, and how it comes, goes and is handed on."""

from corten.engine.images.service import ImageParts, ImageService, ResolvedImage

__all__ = ["ImageParts", "ImageService", "ResolvedImage"]
