"""Detectors of torchvision with a spiking backbone and head, boxes after every step."""

from conversion.detection.detector import Detections, SpikingDetector, convert_detector

__all__ = ["Detections", "SpikingDetector", "convert_detector"]
