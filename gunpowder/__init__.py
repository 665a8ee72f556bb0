"""The Django project: wiring, no domain words."""

from gunpowder.celery import app as celery_app

__all__ = ["celery_app"]
