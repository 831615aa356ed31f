"""Semantic segmentation experiments on COCO-format photos of trash, sharpened by a dense CRF."""

__version__ = "0.1.0"
