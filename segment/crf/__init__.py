"""Fully connected CRF that sharpens a network's class probabilities along the photo's edges."""

from segment.crf.arrays import resize_maps, resized_photo
from segment.crf.dense import DenseCRF
from segment.crf.layer import CRFLayer
from segment.crf.presets import PRESETS

__all__ = ["PRESETS", "CRFLayer", "DenseCRF", "resize_maps", "resized_photo"]
