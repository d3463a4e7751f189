"""``fulgurite stream``: a network reads a recording, or a folder of images, as a camera would send it."""
