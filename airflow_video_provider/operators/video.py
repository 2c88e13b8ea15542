"""Submit a generation and wait for it; fetch the finished file: the operators under one name."""

from __future__ import annotations

from airflow_video_provider.operators.download import VideoDownloadOperator
from airflow_video_provider.operators.generate import VideoGenerateOperator

__all__ = ["VideoDownloadOperator", "VideoGenerateOperator"]
