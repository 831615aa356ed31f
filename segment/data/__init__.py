"""Data: COCO annotations and photos in, batches of `image`, `mask` and `image_id` out."""
